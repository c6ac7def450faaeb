"""Formats that SAEs are read from and written to."""
