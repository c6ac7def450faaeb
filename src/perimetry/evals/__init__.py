"""Evaluations: one file an evaluation, listed in `EVALS`."""

from collections.abc import Callable
from typing import Any

from perimetry.evals.false_alarms import false_alarms, p_histograms
from perimetry.evals.scores import ScoreTable, choose_main
from perimetry.evals.seeds import over_seeds
from perimetry.evals.shift import BenchConfig, bench

__all__ = ["EVALS", "BenchConfig", "ScoreTable", "bench", "choose_main", "false_alarms", "over_seeds", "p_histograms"]

EVALS: dict[str, Callable[..., Any]] = {"shift": bench}
"""The evaluations by name."""
