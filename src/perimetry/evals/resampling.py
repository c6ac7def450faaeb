"""Bootstrap of ranking metrics by pair, where a pair may hold any number of shifted and clean cases.

The metrics are those of `measures.ranking`; here each is computed for all resamples of one detector at once from
sorted scores and running sums of weights, so that a hundred detectors take seconds. All detectors see the same
resamples, so that a difference of two rows of draws is a draw of the difference.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.measures.ranking import auroc, fpr_at_tpr, tpr_at_fpr
from perimetry.measures.stats import resample_counts

__all__ = ["METRICS", "Metric", "PairWeights", "auroc_draws", "fpr_draws", "pair_weights", "tpr_draws"]

Clean = Float[Tensor, " clean"]
Shifted = Float[Tensor, " shifted"]
Draws = Float[Tensor, " resample"]


class PairWeights(NamedTuple):
    """How often each case counts in each resample: as often as its pair was drawn."""

    clean: Float[Tensor, "resample clean"]
    """Of the clean cases."""
    shifted: Float[Tensor, "resample shifted"]
    """Of the shifted cases."""
    pairs: int
    """Number of pairs."""


class Metric(NamedTuple):
    """A metric of one detector on one contrast."""

    value: Callable[[Tensor, Tensor], float]
    """From clean and shifted scores."""
    draws: Callable[[Tensor, Tensor, PairWeights], Tensor]
    """The same for each resample."""


def pair_weights(
    clean_pairs: Sequence[str], shifted_pairs: Sequence[str], draw: torch.Generator, resamples: int
) -> PairWeights:
    """Draw pairs with replacement, all the cases of a pair together."""
    names = {name: i for i, name in enumerate(dict.fromkeys([*clean_pairs, *shifted_pairs]))}
    counts = resample_counts(len(names), resamples, draw)
    columns = [torch.tensor([names[pair] for pair in side]) for side in (clean_pairs, shifted_pairs)]
    return PairWeights(counts[:, columns[0]], counts[:, columns[1]], len(names))


def _sums(weights: Tensor) -> Tensor:
    """Running sums along the cases, with a leading 0."""
    return torch.nn.functional.pad(weights.cumsum(1), (1, 0))


def auroc_draws(clean: Clean, shifted: Shifted, weights: PairWeights) -> Draws:
    """Area under the ROC curve in each resample, ties counted half."""
    ranked, order = clean.sort()
    beneath = _sums(weights.clean[:, order])
    left = torch.searchsorted(ranked, shifted, side="left")
    right = torch.searchsorted(ranked, shifted, side="right")
    wins = (beneath[:, left] + beneath[:, right]) * weights.shifted
    return wins.sum(1).double() / (2 * beneath[:, -1].double() * weights.shifted.sum(1).double())


def tpr_draws(clean: Clean, shifted: Shifted, weights: PairWeights, limit: float = 0.01) -> Draws:
    """Share of shifted cases caught at a false-alarm rate of at most `limit`, in each resample."""
    ranked, order = clean.sort(descending=True)
    above = weights.clean[:, order].cumsum(1)
    allowed = limit * above[:, -1:].double() + 1e-6
    # The first clean score that may raise no alarm; the threshold lies just above it.
    barred = ranked[(above <= allowed).sum(1).clamp_max(clean.numel() - 1)]
    return _share_above(shifted, weights.shifted, barred, strictly=True)


def fpr_draws(clean: Clean, shifted: Shifted, weights: PairWeights, wanted: float = 0.95) -> Draws:
    """False-alarm rate at which the share `wanted` of shifted cases is caught, in each resample."""
    ranked, order = shifted.sort(descending=True)
    above = weights.shifted[:, order].cumsum(1)
    needed = wanted * above[:, -1:].double() - 1e-6
    threshold = ranked[(above < needed).sum(1)]
    return _share_above(clean, weights.clean, threshold, strictly=False)


def _share_above(scores: Tensor, weights: Tensor, thresholds: Draws, *, strictly: bool) -> Draws:
    ranked, order = scores.sort()
    beneath = _sums(weights[:, order])
    place = torch.searchsorted(ranked, thresholds, side="right" if strictly else "left")
    under = beneath.gather(1, place[:, None])[:, 0]
    return 1 - under.double() / beneath[:, -1].double()


METRICS: dict[str, Metric] = {
    "auroc": Metric(auroc, auroc_draws),
    "fpr_at_95_tpr": Metric(fpr_at_tpr, fpr_draws),
    "tpr_at_1_fpr": Metric(tpr_at_fpr, tpr_draws),
}
"""Metrics of a contrast by name: area (higher is better), false alarms at 95 % caught (lower is better), share caught at
1 % false alarms (higher is better)."""
