"""A contrast under way: its rows are those of the plain measures on its own cases."""

import pytest

from evals.samples import dial, gaussian
from perimetry.evals.arms import arm_row, make_arm, sides_of
from perimetry.evals.contrasts import contrasts
from perimetry.evals.scores import checked
from perimetry.measures.ranking import auroc
from perimetry.runtime import generator


def test_areas_and_rows_are_those_of_the_contrast() -> None:
    suite = dial(20)
    table = checked(gaussian(suite.cases, {"l0": 2.0, "nll": 1.0}), suite)
    contrast = contrasts(suite)[-1]
    arm = make_arm(suite, contrast, table, generator(0), seed=3, resamples=200, confidence=0.9)
    assert (contrast.dose, arm.weights.pairs, arm.seed) == (0.5, 20, 3)
    sides = sides_of(arm, "l0")
    assert sides.shifted.tolist() == [
        float(v) for v, c in zip(table.scores["l0"], suite.cases, strict=True) if c.dose == 0.5
    ]
    assert arm.areas["l0"] == pytest.approx(auroc(sides.clean, sides.shifted))
    row = arm_row(arm, "l0", "concept", "auroc", arm.areas["l0"], arm.draws["l0"], against="nll", remark="chosen: x")
    assert (row.family, row.dose, row.n_pairs, row.against) == ("typos", 0.5, 20, "nll")
    assert row.method == "bootstrap by pair 90 %; chosen: x"
    assert row.low < row.estimate < row.high
