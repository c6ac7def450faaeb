"""Tests of perimetry.sae.formats."""
