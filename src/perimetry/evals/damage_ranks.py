"""Whether a score ranks inputs as the damage to the model ranks them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.errors import NonFinite, TooFewSamples, UsageError
from perimetry.measures.ranking import Difference
from perimetry.measures.stats import Interval, percentile_interval, resample_counts

__all__ = ["Agreement", "agreements", "kendall_draws", "spearman_draws"]

Values = Float[Tensor, " pair"]
Table = Mapping[str, Float[Tensor, " ..."]]
Counts = Float[Tensor, "resample pair"]
Draws = Float[Tensor, " resample"]
LEAST = 8


class Agreement(NamedTuple):
    """How well one score follows one kind of damage over pairs. 1 = the same order, 0 = none."""

    detector: str
    """Name of the score with its pooling."""
    damage: str
    """`kl` or `nll_rise`, or what the caller calls it."""
    spearman: Interval
    """Spearman's rank correlation, ties by midranks."""
    kendall: Interval
    """Kendall's tau-b."""
    gain: Difference | None
    """Spearman's correlation of this score minus that of `against`, on the same resamples; None for that score itself."""


def _midranks(values: Values, counts: Counts) -> Float[Tensor, "resample pair"]:
    """Midrank of each value in each resample, in which it occurs `counts` times."""
    levels, place = torch.unique(values, return_inverse=True)
    totals = torch.zeros(counts.shape[0], levels.numel(), dtype=torch.float64).index_add_(1, place, counts)
    return (totals.cumsum(1) - (totals - 1) / 2)[:, place]


def spearman_draws(a: Values, b: Values, counts: Counts) -> Draws:
    """Spearman's correlation in each resample; 0 where one side is constant."""
    counts = counts.double()
    n = counts.sum(1, keepdim=True)
    x, y = _midranks(a, counts) - (n + 1) / 2, _midranks(b, counts) - (n + 1) / 2
    scale = ((counts * x * x).sum(1) * (counts * y * y).sum(1)).sqrt()
    return torch.where(scale > 0, (counts * x * y).sum(1) / scale.clamp_min(1e-300), 0.0)


def kendall_draws(a: Values, b: Values, counts: Counts) -> Draws:
    """Kendall's tau-b (1945) in each resample; 0 where one side is constant."""
    counts = counts.float()
    x, y = torch.sign(a[:, None] - a[None]).float(), torch.sign(b[:, None] - b[None]).float()

    def total(signs: Tensor) -> Tensor:
        return ((counts @ signs).double() * counts).sum(1)

    scale = (total(x.abs()) * total(y.abs())).sqrt()
    return torch.where(scale > 0, total(x * y) / scale.clamp_min(1e-300), 0.0)


def _check(scores: Table, damage: Table, units: Sequence[str], against: str | None) -> None:
    if len(set(units)) < LEAST:
        raise TooFewSamples(f"agreement needs at least {LEAST} passages, got {len(set(units))}; give more")
    for name, values in [*scores.items(), *damage.items()]:
        if values.numel() != len(units):
            raise UsageError(f"{name!r} has {values.numel()} values for {len(units)} pairs; give one a pair")
        if not bool(values.isfinite().all()):
            raise NonFinite(f"{name!r} holds NaN or infinity; finite values are wanted; leave those pairs out")
    if against is not None and against not in scores:
        raise UsageError(f"there is no score {against!r} to compare with; known: {', '.join(scores)}")


def agreements(
    scores: Table,
    damage: Table,
    units: Sequence[str],
    draw: torch.Generator,
    *,
    against: str | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> list[Agreement]:
    """Rank correlation of each score with each kind of damage, with paired bootstrap intervals.

    `units` names the passage that each pair was made of: passages are resampled, with all doses of theirs, and all scores
    see the same resamples. Errors: `TooFewSamples` below 8 passages, `NonFinite`, `UsageError`.
    """
    _check(scores, damage, units, against)
    names = {name: i for i, name in enumerate(dict.fromkeys(units))}
    place = torch.tensor([names[unit] for unit in units])
    counts = torch.cat([torch.ones(1, len(names)), resample_counts(len(names), resamples, draw)])[:, place]
    found: list[Agreement] = []
    for kind, harm in damage.items():
        draws = {name: spearman_draws(values, harm, counts) for name, values in scores.items()}
        for name, values in scores.items():
            boxes = [
                percentile_interval(float(d[0]), d[1:], len(names), "paired bootstrap", confidence)
                for d in (draws[name], kendall_draws(values, harm, counts))
            ]
            gain = None if against in (None, name) else _gain(draws[name] - draws[against], len(names), confidence)
            found.append(Agreement(name, kind, boxes[0], boxes[1], gain))
    return found


def _gain(draws: Draws, n: int, confidence: float) -> Difference:
    box = percentile_interval(float(draws[0]), draws[1:], n, "paired bootstrap", confidence)
    change = draws[1:]
    tail = min(int((change <= 0).sum()), int((change >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (change.numel() + 1))
    return Difference(box.estimate, box.low, box.high, p, n, box.method)
