"""Whether the order of architectures that the published benchmark found comes out: a table of them, with paired differences.

Published at width 4,096 and L0 25 (arXiv 2602.14687, documentation of its code), F1: Matryoshka .879, JumpReLU and BatchTopK
.732, matching pursuit .446. Levels of Matryoshka are the published ones as shares of the width (128, 512, 2,048 of 4,096);
matching pursuit goes on where it chooses an atom twice, as there. JumpReLU differs: there a controller steered a saturating
penalty to the count, here the count itself is the penalty's target, the default of this library.
"""

from collections.abc import Mapping
from typing import Final

from perimetry.evals.sae.ground_truth import GroundTruth, Recipe
from perimetry.evals.sae.judging import Sums, units_of
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.truth_rows import TruthRow, differences, numbers
from perimetry.evals.sae.units import Units

__all__ = ["ORDER", "RECIPES", "order_of_architectures", "order_rows"]

RECIPES: Final = {
    "matryoshka": Recipe("matryoshka", {"fractions": (1 / 32, 3 / 32, 12 / 32, 16 / 32)}),
    "batchtopk": Recipe("batchtopk", {}),
    "jumprelu": Recipe("jumprelu", {}),
    "matching_pursuit": Recipe("matching_pursuit", {"stop_on_duplicate_support": False}),
}
"""What is compared."""
ORDER: Final = (
    ("matryoshka", "batchtopk"),
    ("matryoshka", "jumprelu"),
    ("batchtopk", "matching_pursuit"),
    ("jumprelu", "matching_pursuit"),
)
"""Pairs of which the first is above the second in the published F1."""


def order_of_architectures(
    evaluation: GroundTruth | None = None, *, shelf: Shelf | None = None, progress: bool = False
) -> list[TruthRow]:
    """Train and judge the four architectures as `evaluation` says, once a seed; every number of each, and the pairs of `ORDER`.

    With a shelf that has a folder a killed call goes on where it was. Errors: those of `GroundTruth.config_of` and of training.
    """
    evaluation, shelf = evaluation or GroundTruth(), shelf or Shelf()
    recipes = list(RECIPES.values())
    by_seed = {seed: evaluation.of_seed(recipes, seed, shelf, progress=progress) for seed in evaluation.seeds}
    found = {(name, seed): by_seed[seed][i] for seed in by_seed for i, name in enumerate(RECIPES)}
    rows = order_rows(evaluation.preset, found)
    if evaluation.ceiling:
        rows += numbers(evaluation.preset, "probe", None, [units_of(evaluation.probes(shelf), arm="probe")])
    return rows


def order_rows(preset: str, found: Mapping[tuple[str, int], Mapping[str, Sums]]) -> list[TruthRow]:
    """The rows of dictionaries that were judged, by architecture and seed; pairs of `ORDER` where both are there."""
    by_arm: dict[str, dict[int, list[Units]]] = {}
    for (arm, seed), sums in found.items():
        by_arm.setdefault(arm, {})[seed] = units_of(sums)
    rows: list[TruthRow] = []
    for arm, own in by_arm.items():
        rows += numbers(preset, arm, None, list(own.values()))
        for seed, units in own.items():
            rows += numbers(preset, arm, seed, [units])
    for first, second in ORDER:
        shared = [seed for seed in by_arm.get(first, {}) if seed in by_arm.get(second, {})]
        if not shared:
            continue
        for seed, seeds in [(None, shared), *((s, [s]) for s in shared)]:
            pair = [[by_arm[arm][s] for s in seeds] for arm in (first, second)]
            rows += differences(preset, (first, second), seed, *pair)
    return rows
