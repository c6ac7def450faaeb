"""Tests of perimetry.train."""
