"""Evaluations of dictionaries: one file an evaluation, listed in `SAE_EVALS`."""
