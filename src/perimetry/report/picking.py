"""Picking rows: which arms a suite has, which detectors are worth a line in a figure."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from perimetry.report.schema import ResultRow, Results

__all__ = [
    "Arm",
    "arm_name",
    "arms_of",
    "best_baseline",
    "dose_name",
    "first_seed",
    "headline_arm",
    "is_apart",
    "is_dial",
    "named_baselines",
]

PREFERRED_DOSE = 0.2


class Arm(NamedTuple):
    """One contrast of a suite."""

    family: str
    """Kind of shift, or `all`."""
    dose: float
    """Its strength."""
    negatives: str
    """Kind of clean text, or `all`."""


def first_seed(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """The rows of the lowest SAE seed; the others are summed up in the table of seeds."""
    seed = min((row.seed for row in rows), default=0)
    return [row for row in rows if row.seed == seed]


def arms_of(rows: Iterable[ResultRow], suite: str) -> list[Arm]:
    """The contrasts of a suite: by family, `all` first, by dose, `all` negatives first."""
    found = {Arm(r.family, r.dose, r.negatives) for r in rows if r.suite == suite and r.metric == "auroc"}
    return sorted(found, key=lambda a: (a.family != "all", a.family, a.negatives != "all", a.negatives, a.dose))


def is_dial(arms: Sequence[Arm]) -> bool:
    """Whether the suite has more than one dose."""
    return len({arm.dose for arm in arms}) > 1


def headline_arm(arms: Sequence[Arm]) -> Arm:
    """The contrast that the verdict is about: all kinds of shift and of negatives, at the dose nearest to 20 %."""
    whole = [arm for arm in arms if arm.family == "all" and arm.negatives == "all"]
    some = whole or [arm for arm in arms if arm.negatives == "all"] or list(arms)
    return min(some, key=lambda arm: (abs(arm.dose - PREFERRED_DOSE), arm.family))


def named_baselines(results: Results) -> list[str]:
    """Baselines that were named beforehand, in the order of the rows."""
    rows = (row for row in results.rows if row.metric == "auroc_difference" and not row.best_baseline)
    return list(dict.fromkeys(row.against for row in rows))


def best_baseline(rows: Sequence[ResultRow], suite: str) -> str:
    """The baseline with the highest mean AUROC over the contrasts of a suite; empty when there is none."""
    areas: dict[str, list[float]] = {}
    for row in rows:
        if row.suite == suite and row.metric == "auroc" and row.kind == "baseline":
            areas.setdefault(row.detector, []).append(row.estimate)
    return min(areas, key=lambda name: (-sum(areas[name]) / len(areas[name]), name), default="")


def arm_name(arm: Arm, dial: bool) -> str:
    """A contrast in a few words: family, dose where there is a dial, negatives where they are of one kind."""
    parts = [arm.family] if arm.family != "all" or not dial else []
    parts += [dose_name(arm.dose)] if dial else []
    text = " ".join(parts)
    return text if arm.negatives == "all" else f"{text} vs {arm.negatives}"


def is_apart(results: Results, suite: str) -> bool:
    """Whether all shifted texts of a suite are novel and harmless, so that it is no test of a detector of attacks."""
    arms = arms_of(results.rows, suite)
    families = {arm.family for arm in arms} - {"all"}
    return suite in results.benign and families <= set(results.benign[suite])


def dose_name(dose: float) -> str:
    """A dose in words.

    >>> dose_name(0.05), dose_name(1.0)
    ('5 %', '100 %')
    """
    return f"{100 * dose:.3g} %"
