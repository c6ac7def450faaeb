"""Whether the summaries of a window were drawn as those of the calibration prompts: maximum mean discrepancy (Gretton et al. 2012).

Gaussian kernel; its width is the median distance between calibration prompts, and columns are put on their scale: both are fixed before a window comes.
Calibration prompts weigh as their groups do in the window, and labels are permuted within groups, so that another mix of
groups is no drift here.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, final

import numpy as np
from jaxtyping import Float, Int

from perimetry.measures.relabelling import Group, Relabelled, Tested, monte_carlo_p, relabeller
from perimetry.monitor.drift.effects import Effect, stratified_auroc

__all__ = ["Discrepancy", "SummaryTest"]

_FAR: Final = 8.0
"""Deviations beyond which a number of a summary counts as this far: one wild number is no direction of its own."""


class Discrepancy(NamedTuple):
    """What the test says of a window."""

    tested: Tested
    """Squared discrepancy, and its p-value."""
    effect: Effect
    """How well the witness function, made of one half of the prompts, tells those of the other half apart: AUROC."""


def _squared(a: Float[np.ndarray, "n column"], b: Float[np.ndarray, "m column"]) -> Float[np.ndarray, "n m"]:
    apart = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * (a @ b.T)
    return np.maximum(apart, 0.0)


class _Side(NamedTuple):
    """One group: where its prompts are among all."""

    clean: Int[np.ndarray, " n"]
    seen: Int[np.ndarray, " m"]

    @property
    def all(self) -> Int[np.ndarray, " both"]:
        return np.concatenate(self)


@final
class SummaryTest:
    """The calibration's side, made once."""

    def __init__(
        self, vectors: Float[np.ndarray, "n column"], group: Int[np.ndarray, " n"], points: int, seed: int
    ) -> None:
        """`points`: calibration prompts that are used at most, drawn by `seed`."""
        centre = np.median(vectors, 0)
        spread = 1.4826 * np.median(np.abs(vectors - centre), 0)
        spread = np.where(spread > 0, spread, vectors.std(0))
        self._columns = np.flatnonzero(spread > 0)
        self._centre, self._spread = centre[self._columns], spread[self._columns]
        draw = np.random.default_rng(seed)
        kept = np.sort(draw.permutation(len(vectors))[:points])
        self.group = group[kept]
        """Group of each calibration prompt that is used."""
        self._clean = self._scaled(vectors[kept])
        apart = _squared(self._clean, self._clean)
        between = apart[np.triu_indices(len(kept), 1)]
        self._width = float(np.median(between)) or float(between.max(initial=0.0)) or 1.0
        self._own = self._kernel(apart)

    def _scaled(self, vectors: Float[np.ndarray, "n column"]) -> Float[np.ndarray, "n some"]:
        units = (vectors[:, self._columns] - self._centre) / self._spread
        return np.clip(units, -_FAR, _FAR).astype(np.float32)

    def _kernel(self, apart: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
        return np.exp(apart / np.float32(-2 * self._width))

    def judge(
        self,
        rows: Float[np.ndarray, "m column"],
        group: Int[np.ndarray, " m"],
        draw: np.random.Generator,
        permutations: int,
    ) -> Discrepancy | None:
        """Of the window's summaries; None where no group has at least two prompts on both sides."""
        n = len(self.group)
        sides = [
            _Side(np.flatnonzero(self.group == g), n + np.flatnonzero(group == g)) for g in np.unique(group).tolist()
        ]
        sides = [side for side in sides if min(side.clean.size, side.seen.size) >= 2]
        if not sides:
            return None
        seen = self._scaled(rows)
        across = self._kernel(_squared(self._clean, seen))
        kernel = np.block([[self._own, across], [across.T, self._kernel(_squared(seen, seen))]])
        # The order of the window must not matter to the relabellings.
        order = n + np.lexsort(seen.T[::-1])
        rank = np.empty(len(seen), np.int64)
        rank[order - n] = np.arange(len(seen))
        sides = [_Side(s.clean, s.seen[np.argsort(rank[s.seen - n])]) for s in sides]
        return Discrepancy(_test(kernel, sides, draw, permutations), _witness(kernel, sides, draw))


def _test(
    kernel: Float[np.ndarray, "both both"], sides: Sequence[_Side], draw: np.random.Generator, permutations: int
) -> Tested:
    window, relabel = sum(side.seen.size for side in sides), relabeller(draw)
    used = np.concatenate([side.all for side in sides])
    kernel = kernel[np.ix_(used, used)]

    def statistic(parts: Sequence[Float[np.ndarray, "relabelling _"]]) -> Relabelled:
        weights = np.concatenate(
            [
                part * (1 / window) - (1 - part) * (side.seen.size / window / side.clean.size)
                for part, side in zip(parts, sides, strict=True)
            ],
            1,
        ).astype(np.float32)
        # Without the pairs of a prompt with itself, whose sum no relabelling within groups changes.
        return ((weights @ kernel) * weights).sum(1, dtype=np.float64) - (weights**2).sum(1, dtype=np.float64)

    def relabelled(size: int) -> Relabelled:
        return statistic([relabel(side.all.size, side.seen.size, size) for side in sides])

    labels = [np.repeat([0.0, 1.0], [side.clean.size, side.seen.size])[None] for side in sides]
    observed = float(statistic(labels)[0])
    return Tested(observed, monte_carlo_p(observed, relabelled, permutations))


def _witness(kernel: Float[np.ndarray, "both both"], sides: Sequence[_Side], draw: np.random.Generator) -> Effect:
    """Each half of the prompts is judged by the witness that the other half gives; the mean of both AUROCs."""
    halves: tuple[list[_Side], list[_Side]] = ([], [])
    for side in sides:
        clean, seen = draw.permutation(side.clean), draw.permutation(side.seen)
        halves[0].append(_Side(clean[::2], seen[::2]))
        halves[1].append(_Side(clean[1::2], seen[1::2]))
    found: list[Effect] = []
    for learn, judge in (halves, halves[::-1]):
        window = sum(side.seen.size for side in learn)
        weights = np.zeros(len(kernel), np.float32)
        for side in learn:
            weights[side.seen] = 1 / window
            weights[side.clean] = -side.seen.size / window / side.clean.size
        height = (kernel @ weights).astype(np.float64)
        groups: list[Group] = [(height[side.clean], height[side.seen]) for side in judge]
        found.append(stratified_auroc(groups))
    value = (found[0].value + found[1].value) / 2
    # The halves are judged by different functions, but by prompts that are not shared.
    half = 0.5 * (sum(((e.high - e.low) / 2) ** 2 for e in found)) ** 0.5
    return Effect("auroc", value, max(0.0, value - half), min(1.0, value + half))
