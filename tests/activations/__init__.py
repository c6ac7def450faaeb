"""Tests of perimetry.activations."""
