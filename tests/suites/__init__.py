"""Tests of perimetry.suites."""
