"""Which shifted cases of a suite are compared with which clean ones."""

from collections.abc import Sequence
from typing import NamedTuple

from perimetry.suites import Case, Suite
from perimetry.suites.base import EVERY_FAMILY

__all__ = ["ALL", "Contrast", "DoseLadder", "contrasts", "dose_ladders"]

ALL = EVERY_FAMILY


class Contrast(NamedTuple):
    """One comparison. Every pair in it has a shifted and a clean case."""

    family: str
    """Kind of shift, or `all`."""
    dose: float
    """Strength of the shift."""
    negatives: str
    """Kind of clean text, or `all`."""
    clean: tuple[int, ...]
    """Indices of the clean cases in the suite."""
    shifted: tuple[int, ...]
    """Indices of the shifted cases."""


class DoseLadder(NamedTuple):
    """The cases of each pair, from dose 0 upwards, for one kind of shift."""

    family: str
    """Kind of shift."""
    doses: tuple[float, ...]
    """Rising, the first one 0."""
    cases: tuple[tuple[int, ...], ...]
    """One row a pair, one index a dose."""


def contrasts(suite: Suite) -> list[Contrast]:
    """Every kind of shift at every dose against all its clean cases; all kinds of one dose together where there are
    several; and, where there are several kinds of clean cases, all shifted ones of a dose against each kind.
    """
    shifted = [i for i, case in enumerate(suite.cases) if case.shifted]
    clean = [i for i, case in enumerate(suite.cases) if not case.shifted]
    arms: dict[tuple[str, float], list[int]] = {}
    for i in shifted:
        arms.setdefault((suite.cases[i].family, suite.cases[i].dose), []).append(i)
    families = sorted({family for family, _ in arms})
    kinds = sorted({suite.cases[i].family for i in clean})
    doses = sorted({dose for _, dose in arms})
    found = [_contrast(suite.cases, *arm, ALL, clean, members) for arm, members in sorted(arms.items())]
    for dose in doses:
        members = [i for i in shifted if suite.cases[i].dose == dose]
        if len(families) > 1:
            found.append(_contrast(suite.cases, ALL, dose, ALL, clean, members))
        for kind in kinds if len(kinds) > 1 else ():
            own = [i for i in clean if suite.cases[i].family == kind]
            name = ALL if len(families) > 1 else families[0]
            found.append(_contrast(suite.cases, name, dose, kind, own, members))
    return [contrast for contrast in found if contrast.clean and contrast.shifted]


def _contrast(
    cases: Sequence[Case], family: str, dose: float, negatives: str, clean: Sequence[int], shifted: Sequence[int]
) -> Contrast:
    both = {cases[i].pair for i in clean} & {cases[i].pair for i in shifted}
    return Contrast(
        family,
        dose,
        negatives,
        tuple(i for i in clean if cases[i].pair in both),
        tuple(i for i in shifted if cases[i].pair in both),
    )


def dose_ladders(suite: Suite) -> list[DoseLadder]:
    """One ladder for each kind of shift with at least two doses; pairs that lack a dose are left out."""
    clean = {case.pair: i for i, case in enumerate(suite.cases) if not case.shifted}
    found: list[DoseLadder] = []
    for family in sorted({case.family for case in suite.cases if case.shifted}):
        steps: dict[str, dict[float, int]] = {}
        for i, case in enumerate(suite.cases):
            if case.shifted and case.family == family:
                steps.setdefault(case.pair, {})[case.dose] = i
        doses = sorted({dose for twins in steps.values() for dose in twins})
        rows = [
            (clean[pair], *(twins[dose] for dose in doses))
            for pair, twins in sorted(steps.items())
            if pair in clean and len(twins) == len(doses)
        ]
        if len(doses) > 1 and len(rows) > 1:
            found.append(DoseLadder(family, (0.0, *doses), tuple(rows)))
    return found
