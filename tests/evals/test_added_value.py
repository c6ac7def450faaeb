"""Nested logistic fits: at the minimum of the loss they state, and what they say of planted and of redundant scores."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.samples import dial, gaussian
from perimetry.errors import UsageError
from perimetry.evals.added_value import added_value_rows, fit_logistic, out_of_fold_logits
from perimetry.evals.arms import Arm, make_arm
from perimetry.evals.contrasts import contrasts
from perimetry.evals.rows import Row
from perimetry.evals.scores import ScoreTable, checked
from perimetry.evals.selection import pair_folds
from perimetry.runtime import generator


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.floats(0.0, 30.0))
def test_the_fit_is_where_the_slope_of_the_stated_loss_is_nothing(seed: int, features: int, gain: float) -> None:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(40, features))
    y = draw.random(40) < 1 / (1 + np.exp(-gain * x[:, 0]))
    y[:2] = (True, False)
    found = fit_logistic(torch.tensor(x), torch.tensor(y)).numpy()
    missed = 1 / (1 + np.exp(-(found[0] + x @ found[1:]))) - y
    assert missed.sum() == pytest.approx(0, abs=1e-4)
    assert missed @ x + found[1:] == pytest.approx(np.zeros(features), abs=1e-4)


def test_perfect_separation_converges() -> None:
    x = torch.tensor([[-1e3], [-2.0], [2.0], [1e3]])
    w = fit_logistic(x, torch.tensor([False, False, True, True]))
    assert bool(w.isfinite().all())
    assert float(w[1]) > 0


def test_one_class_is_refused() -> None:
    with pytest.raises(
        UsageError, match="a logistic fit was given cases of one class only; give clean and shifted ones"
    ):
        fit_logistic(torch.zeros(3, 1), torch.ones(3, dtype=torch.bool))


def test_a_case_is_judged_by_a_fit_that_has_not_seen_its_pair() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 2, generator=draw, dtype=torch.float64), torch.arange(40) % 2 == 0
    folds = pair_folds([str(i // 2) for i in range(40)])
    before = out_of_fold_logits(x, y, folds)
    here = folds == 3
    changed = torch.where(here, ~y, y)
    after = out_of_fold_logits(x, changed, folds)
    assert torch.equal(before[here], after[here])
    assert not torch.equal(before[~here], after[~here])


def arm_of(gains: dict[str, float], extra: str = "") -> Arm:
    suite = dial(150, doses=(0.5,))
    table = checked(gaussian(suite.cases, gains), suite)
    if extra:
        table = ScoreTable({**table.scores, extra: 3.0 * table.scores["nll"] + 1.0}, {**table.kinds, extra: "concept"})
    return make_arm(suite, contrasts(suite)[-1], table, generator(0), seed=0, resamples=300, confidence=0.95)


def by_metric(rows: list[Row]) -> dict[str, Row]:
    return {row.metric: row for row in rows}


def test_a_score_that_knows_more_adds_and_a_repetition_does_not() -> None:
    rows = by_metric(added_value_rows(arm_of({"l0": 4.0, "nll": 2.0, "knn": 1.0}), "l0", ("nll", "knn", "absent")))
    assert set(rows) == {"added_log_loss", "added_auroc"}
    assert all(row.low > 0 for row in rows.values())
    assert all((row.against, row.selection, row.n_pairs) == ("nll+knn", "main", 150) for row in rows.values())
    repeated = by_metric(added_value_rows(arm_of({"nll": 3.0, "knn": 1.0}, "l0_copy"), "l0_copy", ("nll", "knn")))
    assert abs(repeated["added_log_loss"].estimate) < 0.01
    assert repeated["added_auroc"].low <= 0.002
    arm = arm_of({"nll": 3.0})
    arm.table.scores["l0_noise"] = torch.randn(arm.table.scores["nll"].shape, generator=generator(1))
    noise = by_metric(added_value_rows(arm, "l0_noise", ("nll",)))
    assert noise["added_log_loss"].low < 0.005


def test_a_score_without_power_of_its_own_adds_where_it_shares_the_noise_of_a_baseline() -> None:
    rows = by_metric(added_value_rows(arm_of({"l0": 0.0, "nll": 3.0}), "l0", ("nll",)))
    assert rows["added_log_loss"].low > 0


def test_without_a_baseline_there_is_nothing_to_add_to() -> None:
    assert added_value_rows(arm_of({"l0": 4.0}), "l0", ("nll",)) == []
