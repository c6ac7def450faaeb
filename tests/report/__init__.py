"""Tests of perimetry.report."""
