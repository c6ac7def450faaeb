"""Whether a meter alarms on clean text as often as it says."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float

from perimetry.errors import TooFewSamples, UsageError
from perimetry.measures.stats import ks_uniform
from perimetry.shift.conformal import false_alarm_interval

__all__ = ["ALPHAS", "FalseAlarmRow", "PHistogram", "false_alarms", "p_histograms"]

ALPHAS = (0.01, 0.05, 0.10)
SLACK = 1e-6
"""p-values come in single precision, in which .1 lies above .1."""


class FalseAlarmRow(NamedTuple):
    """Realised false alarms of one group at one rate."""

    group: str
    """Calibration group."""
    alpha: float
    """The false-alarm rate asked for."""
    realised: float
    """Share of clean test prompts with a p-value of at most `alpha`."""
    low: float
    """Lower end of the interval in which it should lie: beta-binomial, so wide that all rows of the table together lie
    inside theirs with 95 % confidence (Bonferroni)."""
    high: float
    """Upper end."""
    n_test: int
    """Clean test prompts."""
    n_calibration: int
    """Calibration prompts that the p-values were taken against."""
    inside: bool
    """Whether the realised rate lies in the interval."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self._asdict()


class PHistogram(NamedTuple):
    """P-values of the clean test prompts of one group."""

    group: str
    """Calibration group."""
    counts: tuple[int, ...]
    """Prompts in each of the equal bins from 0 to 1, each closed above."""
    ks: float
    """Kolmogorov-Smirnov distance to the uniform distribution."""
    ks_p_value: float
    """Its asymptotic p-value; calibrated p-values are discrete and vary with the calibration set, so that it is small
    somewhat too often."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, as the report reads them."""
        return {"group": self.group, "counts": list(self.counts)}


def false_alarms(
    p_values: Float[torch.Tensor, " prompt"],
    groups: Sequence[str],
    n_calibration: Sequence[int],
    alphas: Sequence[float] = ALPHAS,
    confidence: float = 0.95,
) -> list[FalseAlarmRow]:
    """The false-alarm table of clean test prompts, which no split of the meter has seen; groups in order of their names.

    `groups` and `n_calibration` are those of the p-values: the group of a prompt and how many calibration prompts its
    p-value was taken against. `confidence` is that of all rows at once, so that many groups make no false alarm about
    false alarms. Errors: `TooFewSamples` without a prompt, `UsageError` for lengths that differ.
    """
    _check(p_values, groups, n_calibration)
    rows: list[FalseAlarmRow] = []
    tables = _members(groups)
    each = 1 - (1 - confidence) / (len(tables) * len(alphas))
    for group, members in tables.items():
        sizes = {n_calibration[i] for i in members}
        if len(sizes) != 1:
            raise UsageError(
                f"group {group!r} was judged against {sorted(sizes)} calibration prompts; wanted one number; give the "
                "p-values of one meter"
            )
        size = sizes.pop()
        for alpha in alphas:
            realised = float((p_values[members].double() <= alpha + SLACK).double().mean())
            box = false_alarm_interval(alpha, size, len(members), each)
            inside = box.low - 1e-12 <= realised <= box.high + 1e-12
            rows.append(FalseAlarmRow(group, alpha, realised, box.low, box.high, len(members), size, inside))
    return rows


def p_histograms(p_values: Float[torch.Tensor, " prompt"], groups: Sequence[str], bins: int = 20) -> list[PHistogram]:
    """Histograms of clean p-values by group; uniform where the calibration holds. Errors: as `false_alarms`."""
    _check(p_values, groups, groups)
    found: list[PHistogram] = []
    for group, members in _members(groups).items():
        own = p_values[members].double()
        index = ((own - SLACK) * bins).ceil().long().clamp(1, bins) - 1
        counts = torch.bincount(index, minlength=bins).tolist()
        test = ks_uniform(own)
        found.append(PHistogram(group, tuple(counts), test.statistic, test.p_value))
    return found


def _members(groups: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        found.setdefault(group, []).append(i)
    return dict(sorted(found.items()))


def _check(p_values: torch.Tensor, groups: Sequence[str], others: Sequence[object]) -> None:
    if not len(groups):
        raise TooFewSamples("the false-alarm table was given no clean test prompt; give some")
    if not p_values.numel() == len(groups) == len(others):
        raise UsageError(
            f"{p_values.numel()} p-values, {len(groups)} groups and {len(others)} calibration sizes; wanted one of "
            "each a prompt"
        )
