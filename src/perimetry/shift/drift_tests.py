"""Tests whether two sets of prompts were drawn alike: Kolmogorov-Smirnov, and the maximum mean discrepancy.

Permutation p-values are exact and stop early, as `measures.relabelling` says.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.measures import relabelling
from perimetry.measures.relabelling import monte_carlo_p

__all__ = ["DriftTest", "ks_score", "ks_within_groups", "mmd"]

FEATURES = 256
MEDIAN_ROWS = 1000
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


def ks_score(clean: Float[Tensor, " n"], seen: Float[Tensor, " m"]) -> DriftTest:
    """Two-sample Kolmogorov-Smirnov test (scipy's; exact for small samples, asymptotic for large ones)."""
    from scipy import stats  # late: takes most of a second

    method = "exact" if max(clean.numel(), seen.numel()) <= EXACT else "asymp"
    with warnings.catch_warnings():
        # Where the exact sum overflows, scipy falls back to the asymptotic law and says so; it is as good there.
        warnings.simplefilter("ignore", RuntimeWarning)
        found: Any = stats.ks_2samp(clean.double().numpy(), seen.double().numpy(), method=method)
    return DriftTest("score", float(found.statistic), float(found.pvalue))


def ks_within_groups(
    groups: Sequence[tuple[Float[Tensor, " ..."], Float[Tensor, " ..."]]], draw: torch.Generator, permutations: int
) -> DriftTest:
    """Largest distance between the p-values of the window and those of clean prompts of the same groups.

    `groups`: main scores of (clean, seen) prompts of each group; see `measures.relabelling`. No group gives 1.
    """
    plain = [(clean.double().numpy(), seen.double().numpy()) for clean, seen in groups]

    def relabel(n: int, chosen: int, size: int) -> Any:
        return _relabel(n, chosen, size, draw).numpy()

    return DriftTest("p_value", *relabelling.ks_within_groups(plain, relabel, permutations))


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

    def relabelled(size: int) -> Any:
        return statistic(_relabel(units, chosen, size, draw)).numpy()

    observed = float(statistic(labels[None]))
    return DriftTest("scores", observed, monte_carlo_p(observed, relabelled, permutations))
