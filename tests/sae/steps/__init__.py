"""Tests of perimetry.sae.steps."""
