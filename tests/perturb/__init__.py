"""Tests of perimetry.perturb."""
