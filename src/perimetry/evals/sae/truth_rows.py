"""Flat rows of what was measured against known features."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from perimetry.evals.sae.units import Units, difference, interval

__all__ = ["TruthRow", "differences", "numbers"]


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


def numbers(preset: str, arm: str, seed: int | None, found: Sequence[Units]) -> list[TruthRow]:
    """Every number with its interval over units."""
    rows: list[TruthRow] = []
    for units in found:
        box = interval(units)
        rows.append(TruthRow(preset, arm, "", seed, units.cell.metric, *box[:4], None, box.method))
    return rows


def differences(
    preset: str, arms: tuple[str, str], seed: int | None, first: Sequence[Units], second: Sequence[Units]
) -> list[TruthRow]:
    """How far the first arm is above the second in every number, units resampled for both at once."""
    rows: list[TruthRow] = []
    for one, two in zip(first, second, strict=True):
        gap = difference(one, two)
        box = (gap.estimate, gap.low, gap.high, gap.n, gap.p_value)
        rows.append(TruthRow(preset, *arms, seed, one.cell.metric, *box, gap.method))
    return rows
