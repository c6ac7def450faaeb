"""What the editors promise, on drawn matrices: no model is needed."""

import torch
from torch import Tensor

from perimetry.editing.updates import alphaedit, cost, free_directions, memit, rome
from perimetry.labs.base import Curve, Measured, Outcome
from perimetry.runtime import generator

__all__ = ["OVERLAPS", "run_algebra"]

VALUES, KEYS = 48, 192
ORDINARY = 4000
OTHERS = 20
SMALL = 1e-3
OVERLAPS = (0.83, 0.5, 0.25, 0.1, 0.05, 0.025)
"""k_e' C^-1 k_o as a share of k_e' C^-1 k_e."""


def _some(draw: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def run_algebra(seed: int) -> Outcome:
    """Closed forms against their promises."""
    draw = generator(86_028_121 + seed)
    ordinary = _some(draw, ORDINARY, KEYS) @ _some(draw, KEYS, KEYS) / KEYS**0.5
    moments = ordinary.T @ ordinary / ORDINARY
    weight, value, plain = _some(draw, VALUES, KEYS), _some(draw, VALUES), _some(draw, KEYS)
    mean = plain + 0.3 * _some(draw, KEYS)
    updates = {name: rome(weight, value, plain, mean, moments, name) for name in ("plain", "mean")}
    errors = {"ROME": (updates["plain"], plain), "r-ROME": (updates["mean"], mean)}
    measured = [
        Measured("error of the edited value", float(((weight + update) @ key - value).abs().max()), name)
        for name, (update, key) in errors.items()
    ]
    grown = _growth(weight, value, mean, moments, draw)
    return Outcome(
        [
            *measured,
            Measured("other exact updates disturb more", _least(updates["plain"], plain, moments, draw)),
            *_several(weight, moments, torch.stack([plain, mean], 1), draw),
            *(
                Measured("mixed update over that of r-ROME", times, f"overlap {share:g}")
                for share, times in grown.items()
            ),
        ],
        {"mixed keys": Curve(list(grown), list(grown.values()))},
    )


def _least(best: Tensor, key: Tensor, moments: Tensor, draw: torch.Generator) -> float:
    """Share of drawn updates with the same value at the key that disturb ordinary keys more."""
    off = torch.eye(KEYS, dtype=torch.float64) - torch.outer(key, key) / key.square().sum()
    others = (best + 0.1 * _some(draw, VALUES, KEYS) @ off for _ in range(OTHERS))
    return sum(cost(other, moments) > cost(best, moments) for other in others) / OTHERS


def _several(weight: Tensor, moments: Tensor, keys: Tensor, draw: torch.Generator) -> list[Measured]:
    """MEMIT is the least of its objective; AlphaEdit changes nothing that ordinary keys use."""
    residuals = _some(draw, VALUES, keys.shape[1]) - weight @ keys
    best = memit(keys, residuals, moments, 1.0)

    def objective(update: Tensor) -> float:
        return cost(update, moments) + float((update @ keys - residuals).square().sum())

    worse = sum(objective(best + SMALL * _some(draw, VALUES, KEYS)) > objective(best) for _ in range(OTHERS))
    free = free_directions(moments, 0.02)
    used = torch.eye(KEYS, dtype=torch.float64) - free
    changed = alphaedit(keys, residuals, free) @ used @ _some(draw, KEYS, OTHERS)
    return [
        Measured("other updates are worse for MEMIT", worse / OTHERS),
        Measured("AlphaEdit's change of what is in use", float(changed.abs().max())),
        Measured("directions that AlphaEdit may change", float(free.trace().round())),
    ]


def _growth(weight: Tensor, value: Tensor, mean: Tensor, moments: Tensor, draw: torch.Generator) -> dict[float, float]:
    """How much longer the update with mixed keys is, as the plain key parts from the mean one in the metric of the covariance."""
    metric = torch.linalg.solve(moments, mean)
    size = mean @ metric
    away = 0.3 * _some(draw, KEYS)
    away = away - mean * (away @ metric) / size
    right = rome(weight, value, mean, mean, moments, "mean").norm()
    found: dict[float, float] = {}
    for share in OVERLAPS:
        plain = share * mean + away
        found[share] = float(rome(weight, value, plain, mean, moments, "mixed").norm() / right)
    return found
