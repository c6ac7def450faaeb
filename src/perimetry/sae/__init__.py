"""Sparse autoencoders: one architecture, one file."""
