"""Flat rows of what was measured against known features."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from perimetry.evals.sae.pooled import difference_over_seeds, over_seeds
from perimetry.evals.sae.units import Units

__all__ = ["TruthRow", "differences", "numbers"]


BySeed = Sequence[Sequence[Units]]
"""What was measured of each seed, in the same order of numbers."""


class TruthRow(NamedTuple):
    """One number of an arm on a world of known features, or how far one arm is above another."""

    preset: str
    """World and length of training; `planted` is that of the causal test."""
    arm: str
    """What was done: an architecture, `probe` for the ceiling of linear probes, or an arm of the causal test."""
    against: str
    """Arm that is subtracted; empty where none is."""
    seed: int | None
    """Seed of weights and tokens; None is all of them together, feature by feature."""
    metric: str
    """As in `JUDGED` and `CAUSAL`."""
    estimate: float
    """The number, or the difference."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end of its interval."""
    n: int
    """Units it rests on: features, or blocks of held-out tokens."""
    p_value: float | None
    """Of a difference, two-sided."""
    method: str
    """How the interval was made."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self._asdict()


def numbers(preset: str, arm: str, seed: int | None, found: BySeed) -> list[TruthRow]:
    """Every number with its interval, over units and, of several seeds, over these."""
    rows: list[TruthRow] = []
    for units in zip(*found, strict=True):
        box = over_seeds(units)
        rows.append(TruthRow(preset, arm, "", seed, units[0].cell.metric, *box[:4], None, box.method))
    return rows


def differences(preset: str, arms: tuple[str, str], seed: int | None, first: BySeed, second: BySeed) -> list[TruthRow]:
    """How far the first arm is above the second in every number, on the same units and seeds."""
    rows: list[TruthRow] = []
    for one, two in zip(zip(*first, strict=True), zip(*second, strict=True), strict=True):
        gap = difference_over_seeds(one, two)
        box = (gap.estimate, gap.low, gap.high, gap.n, gap.p_value)
        rows.append(TruthRow(preset, *arms, seed, one[0].cell.metric, *box, gap.method))
    return rows
