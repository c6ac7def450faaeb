"""One contrast under way: its resamples and the areas of all detectors, so that every measurement on it is paired."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from perimetry.evals.contrasts import Contrast
from perimetry.evals.resampling import METRICS, PairWeights, pair_weights
from perimetry.evals.rows import Kind, Place, Row, row_at
from perimetry.evals.scores import ScoreTable
from perimetry.measures.stats import percentile_interval
from perimetry.suites import Suite

__all__ = ["Arm", "Sides", "arm_row", "make_arm", "sides_of"]


class Sides(NamedTuple):
    """The scores of one detector on a contrast."""

    clean: Tensor
    """Of the clean cases."""
    shifted: Tensor
    """Of the shifted cases."""


class Arm(NamedTuple):
    """One contrast with what all measurements on it share."""

    suite: str
    """Name of the suite."""
    contrast: Contrast
    """Which cases."""
    pairs: tuple[str, ...]
    """Pair of every case of the suite."""
    weights: PairWeights
    """How often each case counts in each resample."""
    table: ScoreTable
    """Scores of all cases of the suite."""
    areas: dict[str, float]
    """AUROC of each detector."""
    draws: dict[str, Tensor]
    """The same in each resample."""
    seed: int
    """Of the SAE."""
    confidence: float
    """Of every interval."""


def sides_of(arm: Arm, name: str) -> Sides:
    """The scores of one detector on the contrast."""
    values = arm.table.scores[name]
    return Sides(values[list(arm.contrast.clean)], values[list(arm.contrast.shifted)])


def make_arm(
    suite: Suite,
    contrast: Contrast,
    table: ScoreTable,
    draw: torch.Generator,
    *,
    seed: int,
    resamples: int,
    confidence: float,
) -> Arm:
    """Draw the resamples of a contrast and compute the areas of all detectors in them."""
    pairs = tuple(case.pair for case in suite.cases)
    weights = pair_weights([pairs[i] for i in contrast.clean], [pairs[i] for i in contrast.shifted], draw, resamples)
    arm = Arm(suite.name, contrast, pairs, weights, table, {}, {}, seed, confidence)
    for name in table.scores:
        sides = sides_of(arm, name)
        arm.areas[name], arm.draws[name] = METRICS["auroc"].value(*sides), METRICS["auroc"].draws(*sides, weights)
    return arm


def arm_row(arm: Arm, detector: str, kind: Kind, metric: str, estimate: float, draws: Tensor, **more: Any) -> Row:
    """A row of this contrast; `more`: `against`, `best_baseline`, `selection` and `remark`, as in `row_at`."""
    box = percentile_interval(estimate, draws, arm.weights.pairs, "bootstrap by pair", arm.confidence)
    at = arm.contrast
    place = Place(arm.suite, at.family, at.dose, at.negatives, len(at.shifted), len(at.clean), arm.seed)
    return row_at(place, detector, kind, metric, box, **more)
