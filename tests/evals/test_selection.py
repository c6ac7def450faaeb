"""Choices made elsewhere: nothing of the measured cases leaks into them, and chance is not rewarded."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evals.samples import dial, gaussian, matched
from perimetry.evals.arms import Arm, make_arm
from perimetry.evals.contrasts import contrasts
from perimetry.evals.rows import Row
from perimetry.evals.scores import ScoreTable, checked
from perimetry.evals.selection import (
    OTHER_FAMILIES,
    OTHER_FOLDS,
    fold_rows,
    left_out_rows,
    pair_folds,
    pick,
)
from perimetry.measures.ranking import auroc
from perimetry.runtime import generator
from perimetry.suites import Suite

NOISE = [f"nll{i}" for i in range(40)]


def arm_of(suite: Suite, table: ScoreTable, place: int = -1, resamples: int = 200) -> Arm:
    return make_arm(suite, contrasts(suite)[place], table, generator(0), seed=0, resamples=resamples, confidence=0.95)


def left_out(suite: Suite, table: ScoreTable, resamples: int = 200) -> list[Row]:
    arms = [c for c in contrasts(suite) if len(c.clean) >= 8]
    return left_out_rows(suite, table, arms, generator(1), seed=0, resamples=resamples, confidence=0.95)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(2, 6))
def test_folds_keep_pairs_together_and_are_even(names: list[int], folds: int) -> None:
    pairs = [str(name) for name in names]
    found = pair_folds(pairs, folds).tolist()
    by_pair = dict(zip(pairs, found, strict=True))
    assert [by_pair[pair] for pair in pairs] == found
    sizes = Counter(by_pair.values())
    assert max(sizes.values()) - min(sizes.get(f, 0) for f in range(min(folds, len(by_pair)))) <= 1


def test_the_choice_sees_only_what_lies_outside_the_fold() -> None:
    folds = torch.tensor([0, 0, 1, 1])
    clean, shifted = [0, 2], [1, 3]
    # `a` tells the cases of fold 0 apart and inverts those of fold 1; `b` the other way round.
    scores = {"a": torch.tensor([0.0, 1.0, 1.0, 0.0]), "b": torch.tensor([1.0, 0.0, 0.0, 1.0])}
    found = pick(scores, folds, [(clean, shifted)], [0, 1, 2, 3])
    assert found.choices == {"a": 1, "b": 1}
    # Fold 0 is judged by what fold 1 chose, and the other way round: wrong both times.
    assert float(auroc(found.values[clean], found.values[shifted])) == 0.0


def test_a_choice_among_noise_gains_nothing_where_the_best_after_the_fact_seems_to() -> None:
    suite = dial(60, doses=(0.5,))
    draw = generator(4)
    noise = {name: torch.randn(len(suite.cases), generator=draw) for name in ("l0", *NOISE)}
    table = checked(ScoreTable(noise, {name: "concept" if name == "l0" else "baseline" for name in noise}), suite)
    arm = arm_of(suite, table)
    assert max(arm.areas[name] for name in NOISE) > 0.57
    main, best = fold_rows(arm, "l0")
    assert (main.detector, main.selection, main.against) == ("l0", "main", OTHER_FOLDS["baseline"])
    assert (best.detector, best.selection) == (OTHER_FOLDS["concept"], "out_of_fold")
    chosen = arm.areas["l0"] - main.estimate
    assert abs(chosen - 0.5) < 0.09
    assert main.low <= 0.0 <= main.high
    assert "; chosen: nll" in main.method


def test_the_best_baseline_is_found_and_beaten_by_a_better_score() -> None:
    suite = dial(120, doses=(0.5,))
    table = checked(gaussian(suite.cases, {"l0": 5.0, "l0_excess": 1.0, "nll": 3.0, "knn": 0.0}), suite)
    arm = arm_of(suite, table)
    main, best = fold_rows(arm, "l0")
    assert main.method.endswith("chosen: nll (5)")
    # One choice throughout: the area of the joined scores is that of the baseline itself, but for the scale of the folds.
    assert main.estimate == pytest.approx(arm.areas["l0"] - arm.areas["nll"], abs=0.01)
    assert main.low > 0
    assert best.estimate == pytest.approx(main.estimate, abs=0.01)
    only = ScoreTable({"l0": table.scores["l0"]}, {"l0": "concept"})
    assert fold_rows(arm_of(suite, only), "l0") == []


def test_a_family_is_measured_by_what_the_others_chose() -> None:
    suite = matched(120)
    family = torch.tensor([case.family == "dan" for case in suite.cases])
    table = checked(gaussian(suite.cases, {"l0": 4.0, "surprise": 1.0, "nll": 2.0, "knn": 1.0}), suite)
    # `l0` is blind to the family `dan` alone, so that `tap` chooses it and `dan` suffers.
    blind = table.scores["l0"] - 4.0 * family.double()
    table = ScoreTable({**table.scores, "l0": blind}, table.kinds)
    rows = {(r.family, r.metric, r.detector): r for r in left_out(suite, table)}
    concept = OTHER_FAMILIES["concept"]
    assert "chosen: l0 (5)" in rows["dan", "auroc_left_out", concept].method
    assert rows["dan", "auroc_left_out", concept].estimate < 0.65
    assert "chosen: surprise (5)" in rows["tap", "auroc_left_out", concept].method
    assert rows["dan", "auroc_left_out_difference", concept].high < 0
    assert rows["dan", "auroc_left_out_difference", concept].against == OTHER_FAMILIES["baseline"]


def test_thresholds_hold_their_rate_on_the_family_left_out() -> None:
    suite = dial(300, doses=(0.5,), families=("keyboard", "deletion", "insertion"))
    table = checked(gaussian(suite.cases, {"l0": 6.0, "nll": 4.0}), suite)
    rows = left_out(suite, table)
    assert {r.family for r in rows} == {"keyboard", "deletion", "insertion"}
    alarms = [r for r in rows if r.metric == "fpr_left_out"]
    assert len(alarms) == 6
    assert all(0.02 < r.estimate < 0.08 and r.low <= r.estimate <= r.high for r in alarms)
    caught = {(r.family, r.kind): r.estimate for r in rows if r.metric == "tpr_left_out"}
    assert all(caught[f, "concept"] > caught[f, "baseline"] > 0.3 for f in ("keyboard", "deletion", "insertion"))


def test_one_family_has_none_to_leave_out() -> None:
    suite = dial(20)
    assert left_out(suite, checked(gaussian(suite.cases, {"l0": 1.0, "nll": 0.0}), suite)) == []
