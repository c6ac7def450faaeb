"""The results of a small study, made by hand."""

from typing import Any

__all__ = ["CELLS", "RESULTS", "cell", "over"]


def cell(
    layer: int, architecture: str, detector: str, mean: float, kind: str = "concept", width: int = 64
) -> dict[str, Any]:
    where = {"layer": layer, "architecture": architecture, "width": width if architecture else 0}
    return {**where, "detector": detector, "kind": kind, "mean": mean, "least": mean, "greatest": mean, "seeds": 2}


def over(metric: str, mean: float, low: float, high: float, dose: float = 0.0) -> dict[str, Any]:
    return {
        **{"suite": "typos", "family": "all", "dose": dose, "negatives": "all", "detector": "energy", "metric": metric},
        **{"against": "nll" if metric == "auroc_difference" else "", "selection": "main", "seeds": 2, "mean": mean},
        **{"least": mean - 0.01, "greatest": mean + 0.01, "every_interval_above_zero": low > 0, "low": low},
        **{"high": high, "n_pairs": 40, "method": "bootstrap by pair, 95 %"},
    }


def row(metric: str, seed: int, estimate: float) -> dict[str, Any]:
    return {
        **{
            "split": "test",
            "layer": 12,
            "architecture": "standard",
            "width": 64,
            "fvu": 0.2,
            "l0": 40.0,
            "suite": "typos",
        },
        **{"family": "all", "dose": 0.2, "negatives": "all", "detector": "energy", "kind": "concept", "metric": metric},
        **{"against": "", "best_baseline": False, "selection": "main", "estimate": estimate, "low": 0.1, "high": 0.9},
        **{"n_shifted": 40, "n_clean": 40, "n_pairs": 40, "seed": seed, "method": "bootstrap by pair, 95 %"},
    }


CELLS = [
    cell(6, "topk", "energy", 0.61),
    cell(6, "topk", "l0", 0.64),
    cell(6, "standard", "energy", 0.55),
    cell(12, "topk", "energy", 0.71),
    cell(12, "standard", "energy", 0.83),
    cell(6, "", "nll", 0.77, "baseline"),
    cell(12, "", "nll", 0.78, "baseline"),
    cell(12, "topk", "recon_error", 0.74, "baseline"),
]
RESULTS: dict[str, Any] = {
    **{
        "kind": "study",
        "title": "A <study>",
        "command": "perimetry study",
        "version": "0",
        "hardware": {"processor": "none", "cores": 1},
    },
    **{
        "date": "2026-01-01",
        "main": "energy",
        "rule": "The highest mean.",
        "rows": [row("auroc", s, 0.8) for s in (0, 1)],
    },
    **{"cells": CELLS, "chosen": CELLS[4], "chosen_baseline": CELLS[6], "compared": {"concept": 5, "baseline": 3}},
    "saes": [
        {"layer": 12, "architecture": "standard", "width": 64, "seed": 0, "fvu": 0.213, "l0": 41.2, "dead": 0.015}
    ],
    "confirmed": {
        **{"looks": 1, "date": "2026-01-02", "version": "0"},
        "over_seeds": [over("auroc", 0.8, 0.7, 0.9), over("auroc_difference", 0.034, 0.012, 0.056)],
    },
}
RESULTS["saes"][0]["digest"] = "0123456789abcdefXYZ"
