"""Whether a score follows the dose of a shift."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.measures.stats import Interval, percentile_interval, resample_counts

__all__ = ["DoseFit", "dose_fit"]


class DoseFit(NamedTuple):
    """How a score moves along the doses of the same texts."""

    spearman: Interval
    """Mean over pairs of the rank correlation of score and dose within the pair, dose 0 included; 1 = always rising, 0
    for a pair whose scores are all the same."""
    rising: Interval
    """Share of the steps from one dose to the next at which the mean score rises; 1 = monotone."""


def dose_fit(
    scores: Float[Tensor, "pair dose"], draw: torch.Generator, *, resamples: int = 1000, confidence: float = 0.95
) -> DoseFit:
    """Both measures with their bootstrap intervals by pair; columns are the doses, rising.

    >>> fit = dose_fit(torch.tensor([[0.0, 1.0, 2.0], [0.0, 2.0, 1.0]]), torch.Generator().manual_seed(0))
    >>> fit.spearman.estimate, fit.rising.estimate
    (0.75, 0.5)
    """
    exact = scores.double()
    pairs = exact.shape[0]
    counts = resample_counts(pairs, resamples, draw).double()
    within = _spearman_rows(exact)
    spearman = percentile_interval(
        float(within.mean()), counts @ within / pairs, pairs, "bootstrap by pair", confidence
    )
    steps = exact.diff(dim=1)
    share = (counts @ steps > 0).double().mean(1)
    estimate = float((steps.mean(0) > 0).double().mean())
    return DoseFit(spearman, percentile_interval(estimate, share, pairs, "bootstrap by pair", confidence))


def _spearman_rows(scores: Float[Tensor, "pair dose"]) -> Float[Tensor, " pair"]:
    """Rank correlation of each row with its column index, ties by midranks; 0 for a constant row."""
    doses = scores.shape[1]
    below = (scores[:, None, :] < scores[:, :, None]).double().sum(2)
    ties = (scores[:, None, :] == scores[:, :, None]).double().sum(2)
    ranks = below + (ties - 1) / 2
    ranks = ranks - ranks.mean(1, keepdim=True)
    wanted = torch.arange(doses, dtype=torch.float64) - (doses - 1) / 2
    scale = (ranks.square().sum(1) * wanted.square().sum()).sqrt()
    return torch.where(scale > 0, (ranks * wanted).sum(1) / scale.clamp_min(1e-300), 0.0)
