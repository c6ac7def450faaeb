"""Tests whether two sets of prompts were drawn alike: Kolmogorov-Smirnov, and the maximum mean discrepancy.

Permutation p-values are (1 + relabellings at least as extreme) / (1 + relabellings), exact under exchangeability (Phipson
and Smyth 2010). Drawing stops early once 50 relabellings were as extreme: the p-value is then 50 over the number drawn,
exact as well (Besag and Clifford 1991), and a window without drift costs little however small a p-value the budget wants.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["DriftTest", "ks_score", "ks_within_groups", "mmd", "monte_carlo_p"]

CHUNK = 64
FEATURES = 256
MEDIAN_ROWS = 1000
ENOUGH = 50
EXACT = 1500
Relabelled = Float[Tensor, " relabelling"]


class DriftTest(NamedTuple):
    """One test of one window."""

    name: str
    """`score`, `p_value`, `scores` or `alarms`."""
    statistic: float
    """Kolmogorov-Smirnov distance in [0, 1]; squared maximum mean discrepancy; for alarms their excess. About 0 = alike."""
    p_value: float
    """Chance of so large a statistic without drift."""


def monte_carlo_p(
    observed: float, relabelled: Callable[[int], Relabelled], permutations: int, enough: int = ENOUGH
) -> float:
    """P-value of `observed` among statistics of random relabellings, drawn in chunks until `enough` are as large."""
    drawn = extreme = 0
    while drawn < permutations:
        size = min(CHUNK, permutations - drawn)
        # Rounding must not make a relabelling that gives the observed split look smaller.
        hits = relabelled(size) >= observed - 1e-9 * max(1e-3, abs(observed))
        if extreme + int(hits.sum()) >= enough:
            at = int(hits.cumsum(0).eq(enough - extreme).nonzero()[0])
            return enough / (drawn + at + 1)
        drawn, extreme = drawn + size, extreme + int(hits.sum())
    return (1 + extreme) / (1 + permutations)


def ks_score(clean: Float[Tensor, " n"], seen: Float[Tensor, " m"]) -> DriftTest:
    """Two-sample Kolmogorov-Smirnov test (scipy's; exact for small samples, asymptotic for large ones)."""
    from scipy import stats  # late: takes most of a second

    method = "exact" if max(clean.numel(), seen.numel()) <= EXACT else "asymp"
    with warnings.catch_warnings():
        # Where the exact sum overflows, scipy falls back to the asymptotic law and says so; it is as good there.
        warnings.simplefilter("ignore", RuntimeWarning)
        found: Any = stats.ks_2samp(clean.double().numpy(), seen.double().numpy(), method=method)
    return DriftTest("score", float(found.statistic), float(found.pvalue))


class _Group(NamedTuple):
    """One group, its prompts ranked together."""

    place: Int[Tensor, " prompt"]
    """Where each prompt's rank in its group lies among the ranks of all groups."""
    clean: int
    """Clean prompts in it."""
    seen: int
    """Prompts of the window in it."""
    labels: Float[Tensor, " prompt"]
    """1 for prompts of the window."""


def ks_within_groups(
    groups: Sequence[tuple[Float[Tensor, " ..."], Float[Tensor, " ..."]]], draw: torch.Generator, permutations: int
) -> DriftTest:
    """Largest distance between the p-values of the window and those of clean prompts of the same groups.

    `groups`: main scores of (clean, seen) prompts of each group. Each prompt is ranked within its group, all its prompts
    together; the window's distribution of ranks is compared with that of the clean prompts, groups weighed as in the
    window. Labels are permuted within groups, so the p-value is exact, with ties and for any mix of groups. No group
    gives 1.
    """
    groups = [g for g in groups if g[1].numel()]
    if not groups:
        return DriftTest("p_value", 0.0, 1.0)
    ranks = [_upper_ranks(torch.cat(g)) for g in groups]
    levels, places = torch.unique(torch.cat(ranks), return_inverse=True)
    window = sum(seen.numel() for _, seen in groups)
    parts: list[_Group] = []
    for (clean, seen), place in zip(groups, places.split([r.numel() for r in ranks]), strict=True):
        labels = torch.cat([torch.zeros(clean.numel()), torch.ones(seen.numel())]).double()
        # Sorted, so that the order of the readings cannot matter to the relabellings.
        order = (place.double() * 2 + labels).argsort(stable=True)
        parts.append(_Group(place[order], clean.numel(), seen.numel(), labels[order]))

    def statistic(labels: Sequence[Tensor]) -> Relabelled:
        steps = torch.zeros(labels[0].shape[0], levels.numel(), dtype=torch.float64)
        for part, label in zip(parts, labels, strict=True):
            share = part.seen / window
            weight = label * (1 / window) - (1 - label) * (share / part.clean)
            steps.index_add_(1, part.place, weight)
        return steps.cumsum(1).abs().amax(1)

    def relabelled(size: int) -> Relabelled:
        return statistic([_relabel(p.place.numel(), p.seen, size, draw) for p in parts])

    observed = float(statistic([p.labels[None] for p in parts]))
    return DriftTest("p_value", observed, monte_carlo_p(observed, relabelled, permutations))


def _upper_ranks(values: Tensor) -> Tensor:
    """Share of values at least as large: p-values, but among all of them."""
    ranked = values.sort().values
    below = torch.searchsorted(ranked, values, side="left").double()
    return (values.numel() - below) / values.numel()


def _relabel(n: int, chosen: int, size: int, draw: torch.Generator) -> Float[Tensor, "relabelling n"]:
    """Rows with `chosen` ones at random."""
    picks = torch.rand(size, n, generator=draw, dtype=torch.float64).topk(chosen, dim=1).indices
    return torch.zeros(size, n, dtype=torch.float64).scatter_(1, picks, 1.0)


def _normal_scores(values: Float[Tensor, "n score"]) -> Float[Tensor, "n score"]:
    """Each column by the normal quantiles of its midranks: heavy tails and units stop mattering."""
    n = values.shape[0]
    columns = []
    for column in values.T.contiguous():
        ranked = column.sort().values
        twice = torch.searchsorted(ranked, column, side="left") + torch.searchsorted(ranked, column, side="right")
        columns.append(torch.special.ndtri(twice.double() / (2 * n)))
    return torch.stack(columns, 1).float()


class _Units(NamedTuple):
    """Prompts, each with one or more rows, in an order that is that of their values."""

    rows: Float[Tensor, "n score"]
    """Sorted."""
    place: Int[Tensor, " n"]
    """The prompt of each row, numbered as prompts first occur."""
    of_window: Bool[Tensor, " n"]
    """Whether the row is of the window."""


def _units(rows: Float[Tensor, "n score"], unit: Int[Tensor, " n"], clean: int) -> _Units:
    order = torch.from_numpy(np.lexsort(rows.numpy().T[::-1]))
    unit = unit[order]
    _, first, inverse = np.unique(unit.numpy(), return_index=True, return_inverse=True)
    place = first.argsort().argsort()[inverse]
    return _Units(rows[order], torch.from_numpy(place), unit >= clean)


def _features(rows: Float[Tensor, "n score"], draw: torch.Generator) -> Float[Tensor, "n feature"]:
    """Cosines and sines at random frequencies, whose products average to the Gaussian kernel (Rahimi and Recht 2007)."""
    sample = rows[torch.randperm(rows.shape[0], generator=draw)[:MEDIAN_ROWS]]
    apart = torch.pdist(sample)
    width = float(apart.median()) if apart.numel() else 1.0
    width = width if width > 0 else float(apart.max()) or 1.0
    angles = rows @ torch.randn(rows.shape[1], FEATURES, generator=draw) / width
    return torch.cat([angles.cos(), angles.sin()], 1) / math.sqrt(FEATURES)


def mmd(
    clean: Float[Tensor, "n score"],
    seen: Float[Tensor, "m score"],
    draw: torch.Generator,
    *,
    blocks: Int[Tensor, " m"] | None = None,
    permutations: int = 999,
) -> DriftTest:
    """Maximum mean discrepancy (Gretton et al. 2012) between vectors of several scores, with a permutation p-value.

    Gaussian kernel with the median distance as its width, by random features: time and memory grow linearly with the
    number of prompts. Columns are ranked, and the width taken, over both sides together: a width taken from the
    reference alone would change with the labels, and the p-value would no longer be exact. `blocks` numbers the prompt
    that each row of the window belongs to; rows of a prompt change sides together, and each clean row is a prompt of its
    own. The statistic is the unbiased one without blocks, about 0 when nothing drifts; the order of rows is irrelevant.
    """
    n, own = clean.shape[0], torch.arange(seen.shape[0]) if blocks is None else blocks
    both = _normal_scores(torch.cat([clean, seen]))
    # In the order of their values, so that the order in which readings came cannot matter.
    rows, place, of_window = _units(both, torch.cat([torch.arange(n), own + n]), n)
    units = int(place.max()) + 1
    features = _features(rows, draw).double()
    phi = torch.zeros(units, features.shape[1], dtype=torch.float64).index_add_(0, place, features)
    counts = torch.bincount(place).double()
    labels = torch.zeros(units, dtype=torch.float64)
    labels[place[of_window]] = 1.0
    total, chosen = phi.sum(0), int(labels.sum())

    def statistic(labels: Float[Tensor, "relabelling unit"]) -> Relabelled:
        m = labels @ counts
        inside = labels @ phi
        outside, k = total - inside, counts.sum() - m
        within = (inside.square().sum(1) - m) / (m * (m - 1)) + (outside.square().sum(1) - k) / (k * (k - 1))
        return within - 2 * (inside * outside).sum(1) / (m * k)

    def relabelled(size: int) -> Relabelled:
        return statistic(_relabel(units, chosen, size, draw))

    observed = float(statistic(labels[None]))
    return DriftTest("scores", observed, monte_carlo_p(observed, relabelled, permutations))
