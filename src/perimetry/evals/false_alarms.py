"""Whether a meter alarms on clean text as often as it says."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float

from perimetry.errors import TooFewSamples, UsageError
from perimetry.measures.stats import ks_two_sample, ks_uniform
from perimetry.shift.conformal import false_alarm_interval

__all__ = ["ALPHAS", "FalseAlarmRow", "PHistogram", "Uniformity", "false_alarms", "p_histograms", "p_uniformity"]

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


class Uniformity(NamedTuple):
    """Whether the p-values of clean test prompts of one group are uniform, as far as chance lets them be."""

    group: str
    """Calibration group."""
    statistic: float
    """Kolmogorov-Smirnov distance between the test prompts and the calibration prompts of the group, in [0, 1]."""
    p_value: float
    """Chance of such a distance between exchangeable prompts; asymptotic."""
    n_test: int
    """Clean test prompts."""
    n_calibration: int
    """Calibration prompts."""
    uniform: bool
    """Whether the p-value is above .05 divided by the number of groups."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self._asdict()


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
        size = _one_size(group, [n_calibration[i] for i in members])
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


def p_uniformity(
    p_values: Float[torch.Tensor, " prompt"],
    groups: Sequence[str],
    n_calibration: Sequence[int],
    significance: float = 0.05,
) -> list[Uniformity]:
    """A Kolmogorov-Smirnov test in each group that clean p-values are what they should be; groups in order of their names.

    All p-values of a group share one calibration set, so that against the uniform distribution alone the test would find
    fault with every large test set. A one-sided p-value tells how many calibration scores lie above a prompt's; with that
    the test prompts are compared with the calibration prompts themselves, which is exact however few those are.
    `significance` is that of all groups together (Bonferroni). Errors: as `false_alarms`.
    """
    _check(p_values, groups, n_calibration)
    tables = _members(groups)
    found: list[Uniformity] = []
    for group, members in tables.items():
        size = _one_size(group, [n_calibration[i] for i in members])
        above = (p_values[members].double() * (size + 1)).round() - 1
        # Calibration score i of n lies at i; a prompt lies between the scores below and above it.
        test = ks_two_sample(size - above - 0.5, torch.arange(size, dtype=torch.float64))
        uniform = test.p_value > significance / len(tables)
        found.append(Uniformity(group, test.statistic, test.p_value, len(members), size, uniform))
    return found


def _one_size(group: str, sizes: Sequence[int]) -> int:
    if len(set(sizes)) != 1:
        raise UsageError(
            f"group {group!r} was judged against {sorted(set(sizes))} calibration prompts; wanted one number; give the "
            "p-values of one meter"
        )
    return sizes[0]


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
