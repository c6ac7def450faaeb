"""Permutation tests within groups, in numpy alone: p-values by relabelling, and the distance of Kolmogorov and Smirnov between ranks.

Permutation p-values are (1 + relabellings at least as extreme) / (1 + relabellings), exact under exchangeability (Phipson
and Smyth 2010). Drawing stops early once 50 relabellings were as extreme: the p-value is then 50 over the number drawn,
exact as well (Besag and Clifford 1991), and a window without drift costs little however small a p-value the budget wants.

Nothing here imports torch: the process of the service that judges the traffic has none.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int

__all__ = ["ENOUGH", "Group", "Relabel", "Relabelled", "Tested", "ks_within_groups", "monte_carlo_p", "relabeller"]

ENOUGH: Final = 50
"""Relabellings as extreme as what was seen, after which no more are drawn."""
_CHUNK: Final = 64

Relabelled: TypeAlias = Float[np.ndarray, " relabelling"]
"""The statistic of some relabellings."""
Relabel: TypeAlias = Callable[[int, int, int], Float[np.ndarray, "relabelling n"]]
"""From n, the number of ones in a row, and a number of rows: rows of n with that many ones at random, zeros elsewhere."""
Group: TypeAlias = tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]
"""Values of the clean prompts of a group, and of those of the window."""


class Tested(NamedTuple):
    """What a test says."""

    statistic: float
    """About 0 where both sides are alike."""
    p_value: float
    """Chance of so large a statistic where they are drawn alike."""


def relabeller(draw: np.random.Generator) -> Relabel:
    """Relabellings from a generator."""

    def relabel(n: int, chosen: int, size: int) -> Float[np.ndarray, "relabelling n"]:
        rows = np.zeros((size, n))
        if 0 < chosen < n:
            picks = np.argpartition(draw.random((size, n)), chosen, axis=1)[:, :chosen]
            np.put_along_axis(rows, picks, 1.0, axis=1)
        elif chosen:
            rows[:] = 1.0
        return rows

    return relabel


def monte_carlo_p(
    observed: float, relabelled: Callable[[int], Relabelled], permutations: int, enough: int = ENOUGH
) -> float:
    """P-value of `observed` among statistics of random relabellings, drawn in chunks until `enough` are as large."""
    drawn = extreme = 0
    while drawn < permutations:
        size = min(_CHUNK, permutations - drawn)
        # Rounding must not make a relabelling that gives the observed split look smaller.
        hits = relabelled(size) >= observed - 1e-9 * max(1e-3, abs(observed))
        if extreme + int(hits.sum()) >= enough:
            at = int(np.flatnonzero(np.cumsum(hits) == enough - extreme)[0])
            return enough / (drawn + at + 1)
        drawn, extreme = drawn + size, extreme + int(hits.sum())
    return (1 + extreme) / (1 + permutations)


def _upper_ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Share of values at least as large: p-values, but among all of them."""
    return (values.size - np.searchsorted(np.sort(values), values, side="left")) / values.size


class _Column(NamedTuple):
    """One group among the ranks of all."""

    places: Int[np.ndarray, " prompt"]
    """Where its prompts lie when all are sorted by rank."""
    chosen: int
    """Prompts of the window in it."""
    up: float
    """What a prompt of the window adds to the distance."""
    down: float
    """What a clean prompt takes from it."""


def ks_within_groups(groups: Sequence[Group], relabel: Relabel, permutations: int, enough: int = ENOUGH) -> Tested:
    """Largest distance between the ranks of the window and those of clean prompts of the same groups.

    Each prompt is ranked within its group, all its prompts together; the window's distribution of ranks is compared with
    that of the clean prompts, groups weighed as in the window. Labels are permuted within groups, so the p-value is
    exact, with ties and for any mix of groups. Groups without a prompt of the window do not count; without any group the
    p-value is 1. Each other group has at least one clean prompt.

    >>> clean, seen = np.arange(8.0), np.arange(8.0) + 0.5
    >>> round(ks_within_groups([(clean, seen)], relabeller(np.random.default_rng(0)), 99).statistic, 3)
    0.125
    """
    groups = [group for group in groups if group[1].size]
    if not groups:
        return Tested(0.0, 1.0)
    sizes = [clean.size + seen.size for clean, seen in groups]
    window = sum(seen.size for _, seen in groups)
    ranks = np.concatenate([_upper_ranks(np.concatenate(group)) for group in groups])
    labels = np.concatenate([np.repeat([0.0, 1.0], [clean.size, seen.size]) for clean, seen in groups])
    owner = np.repeat(np.arange(len(groups)), sizes)
    # Sorted by label in the end, so that the order of the readings cannot matter to the relabellings.
    order = np.lexsort((labels, owner, ranks))
    ranks, labels, owner = ranks[order], labels[order], owner[order]
    ends = np.flatnonzero(np.append(np.diff(ranks) > 0, True))
    columns = [
        _Column(np.flatnonzero(owner == g), seen.size, 1 / window, seen.size / window / clean.size)
        for g, (clean, seen) in enumerate(groups)
    ]

    def statistic(parts: Sequence[Float[np.ndarray, "relabelling _"]]) -> Relabelled:
        steps = np.empty((parts[0].shape[0], ranks.size))
        for column, part in zip(columns, parts, strict=True):
            steps[:, column.places] = part * (column.up + column.down) - column.down
        return np.abs(np.cumsum(steps, axis=1)[:, ends]).max(1)

    def relabelled(size: int) -> Relabelled:
        return statistic([relabel(c.places.size, c.chosen, size) for c in columns])

    observed = float(statistic([labels[None, c.places] for c in columns])[0])
    return Tested(observed, monte_carlo_p(observed, relabelled, permutations, enough))
