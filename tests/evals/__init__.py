"""Tests of perimetry.evals."""
