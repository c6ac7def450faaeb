"""Tests of perimetry.sae."""
