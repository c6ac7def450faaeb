"""From what the jobs of a lab gave to rows with intervals, and to what that says of each expectation."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from perimetry.labs.base import Asked, Expectation, Gate, Job, Measured, Outcome
from perimetry.labs.points import CONCEPTS
from perimetry.measures.stats import Interval, mean_interval, wilson
from perimetry.shift import DETECTORS

__all__ = ["LabRow", "answered", "judged", "over_seeds", "rows_of"]

EXACT = "exact for this world and seed"
ONE = "one seed, no interval"
WEIGHTS = "weights at hand"
"""Number of an arm that reads a model which may be absent: 1 or 0."""


class LabRow(NamedTuple):
    """One number of an arm, of one seed or of all."""

    arm: str
    """Arm."""
    seed: int | None
    """Seed; None is the mean over all of them."""
    metric: str
    """Number."""
    case: str
    """Of what, where an arm measures it of several things."""
    estimate: float
    """The number."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    n: int
    """Seeds, or units within the one seed."""
    method: str
    """How the interval was made."""


def over_seeds(values: Sequence[float]) -> Interval:
    """Mean over seeds with Student's interval; of one seed the number alone."""
    if len(values) < 2:
        return Interval(values[0], values[0], values[0], 1, ONE)
    return mean_interval(torch.tensor(values, dtype=torch.float64))


def _of_one(job: Job, one: Measured) -> LabRow:
    exact = one.low is None or one.high is None
    low, high = (one.value, one.value) if one.low is None or one.high is None else (one.low, one.high)
    method = EXACT if exact else "95 % over the units of this seed"
    return LabRow(job.arm, job.seed, one.metric, one.case, one.value, low, high, one.n, method)


def rows_of(found: Mapping[Job, Outcome]) -> list[LabRow]:
    """Every number of every job, and of all seeds of an arm together. Numbers that are not finite are left out."""
    rows: list[LabRow] = []
    for arm in dict.fromkeys(job.arm for job in found):
        own = {job: outcome for job, outcome in found.items() if job.arm == arm}
        values: dict[tuple[str, str], list[float]] = {}
        for job, outcome in own.items():
            for one in outcome.measured:
                if math.isfinite(one.value):
                    rows.append(_of_one(job, one))
                    values.setdefault((one.metric, one.case), []).append(one.value)
        for (metric, case), several in values.items():
            rows.append(LabRow(arm, None, metric, case, *over_seeds(several)))
    return rows


def judged(expected: Sequence[Expectation], rows: Sequence[LabRow], gate: Gate) -> list[dict[str, Any]]:
    """Each expectation whose arm was run: in how many seeds it is satisfied, and whether that is as many as it needs.

    A seed that did not give the number does not satisfy it; an arm that could not run, for its weights were not at hand, is left out.

    The number over all seeds has Student's interval, the share of seeds Wilson's. `decides` says whether the verdict counts for
    the lab as a whole.
    """
    found: list[dict[str, Any]] = []
    for one in expected:
        own = [r for r in rows if r.arm == one.arm and r.seed is not None]
        if not own or any(r.metric == WEIGHTS and r.estimate == 0 for r in own):
            continue
        mine = [r for r in rows if (r.arm, r.metric, r.case) == (one.arm, one.metric, one.case)]
        so = sum(one.satisfied(r.estimate) for r in mine if r.seed is not None)
        runs = len({r.seed for r in own})
        whole = next((r._asdict() for r in mine if r.seed is None), dict.fromkeys(("estimate", "low", "high")))
        share = wilson(so, runs)
        found.append(
            {
                **one._asdict(),
                **{key: whole[key] for key in ("estimate", "low", "high")},
                "n": runs,
                **{"so": so, "share_low": share.low, "share_high": share.high},
                "verdict": "holds" if so >= one.needed * runs - 1e-9 else "fails",
                "decides": gate == "all" or one.control,
            }
        )
    return found


def _reads(score: str) -> bool:
    """Whether concepts are read for a score; the reconstruction error counts, as it is the dictionary's."""
    return score in CONCEPTS or (score in DETECTORS and not DETECTORS[score].baseline)


def answered(asked: Sequence[Asked], rows: Sequence[LabRow]) -> list[dict[str, Any]]:
    """Each question with the number of each score over all seeds; columns and scores that were not measured are left out."""
    whole = {(r.arm, r.metric, r.case): r for r in rows if r.seed is None}
    found: list[dict[str, Any]] = []
    for one in asked:
        cells = {
            (score, column): whole.get((column.arm, column.metric, column.case.format(score=score)))
            for score in one.scores
            for column in one.columns
        }
        columns = [c for c in one.columns if any(cells[score, c] for score in one.scores)]
        scores = [score for score in one.scores if any(cells[score, c] for c in columns)]
        if not columns:
            continue
        found.append(
            {
                "question": one.question,
                "unit": one.unit,
                "columns": [c.name for c in columns],
                "scores": [
                    {
                        "score": score,
                        "concepts": score in one.reading or any(map(_reads, score.removeprefix("mean ").split(" or "))),
                        "cells": [
                            None if (cell := cells[score, c]) is None else [cell.estimate, cell.low, cell.high, cell.n]
                            for c in columns
                        ],
                    }
                    for score in scores
                ],
            }
        )
    return found
