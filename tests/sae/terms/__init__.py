"""Tests of perimetry.sae.terms."""
