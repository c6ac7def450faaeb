"""How far a window of readings lies from clean ones in each score, in units that do not grow with the window."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.measures.ranking import auroc
from perimetry.measures.stats import Interval, percentile_interval, resample_counts

__all__ = ["Effect", "cliff_delta", "effects", "hedges_g"]

CHUNK = 50
Sample = Float[Tensor, " n"]
Draws = Float[Tensor, " resample"]


class Effect(NamedTuple):
    """Size and direction of the difference in one score."""

    score: str
    """Name of the score."""
    cliff: Interval
    """Cliff's delta: chance that a prompt of the window scores above a clean one, minus the reverse; 0 = alike, 1 =
    always above. Blind to scale."""
    hedges: Interval
    """Hedges' g: difference of means in pooled standard deviations, corrected for small samples; 0 where nothing
    varies."""


def cliff_delta(clean: Sample, seen: Float[Tensor, " m"]) -> float:
    """Cliff's delta (1993), ties counted as neither.

    >>> cliff_delta(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]))
    0.75
    """
    return 2 * auroc(clean, seen) - 1


def hedges_g(clean: Sample, seen: Float[Tensor, " m"]) -> float:
    """Hedges' g (1981) with the correction 1 - 3 / (4 (n + m) - 9).

    >>> round(hedges_g(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 3.0, 4.0])), 4)
    0.8
    """
    ones = torch.ones(1, clean.numel(), dtype=torch.float64), torch.ones(1, seen.numel(), dtype=torch.float64)
    return float(_hedges(clean.double(), seen.double(), *ones))


def _hedges(clean: Tensor, seen: Tensor, clean_counts: Tensor, seen_counts: Tensor) -> Tensor:
    centre = clean.mean()  # Sums of squares lose digits far from 0.
    n, m = clean.numel(), seen.numel()
    x, y = clean - centre, seen - centre
    mean_x, mean_y = clean_counts @ x / n, seen_counts @ y / m
    squares = clean_counts @ x.square() - n * mean_x.square() + seen_counts @ y.square() - m * mean_y.square()
    spread = (squares.clamp_min(0) / (n + m - 2)).sqrt()
    g = (mean_y - mean_x) / spread * (1 - 3 / (4 * (n + m) - 9))
    return torch.where(spread > 1e-12 * (1 + centre.abs()), g, 0.0)


def _cliff(clean: Tensor, seen: Tensor, clean_counts: Tensor, seen_counts: Tensor) -> Tensor:
    ranked, order = clean.sort()
    running = torch.nn.functional.pad(clean_counts[:, order].cumsum(1), (1, 0))
    below = running[:, torch.searchsorted(ranked, seen, side="left")]
    upto = running[:, torch.searchsorted(ranked, seen, side="right")]
    total = clean_counts.sum(1) * seen_counts.sum(1)
    return (seen_counts * (below + upto)).sum(1) / total - 1


def effects(
    names: Sequence[str],
    clean: Float[Tensor, "n score"],
    seen: Float[Tensor, "m score"],
    draw: torch.Generator,
    resamples: int = 500,
    confidence: float = 0.95,
) -> list[Effect]:
    """Both effect sizes of each score, with percentile bootstrap intervals; all scores see the same resamples."""
    draws = torch.empty(2, len(names), resamples, dtype=torch.float64)
    x, y = clean.double().T.contiguous(), seen.double().T.contiguous()
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        counts = [resample_counts(side.shape[0], size, draw).double() for side in (clean, seen)]
        for i in range(len(names)):
            draws[0, i, start : start + size] = _cliff(x[i], y[i], *counts)
            draws[1, i, start : start + size] = _hedges(x[i], y[i], *counts)
    units = min(clean.shape[0], seen.shape[0])
    found: list[Effect] = []
    for i, name in enumerate(names):
        values = cliff_delta(x[i], y[i]), hedges_g(x[i], y[i])
        assert all(map(math.isfinite, values))
        box = [
            percentile_interval(v, d, units, "bootstrap", confidence) for v, d in zip(values, draws[:, i], strict=True)
        ]
        found.append(Effect(name, *box))
    return found
