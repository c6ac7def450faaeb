"""Dials that move an input out of distribution."""
