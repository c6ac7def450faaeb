import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch.nn.functional import softplus

from perimetry.errors import Incompatible, NonFinite, TooFewSamples, UsageError
from perimetry.measures.logistic import STRENGTHS, Labelled, Penalty, Probe, fit, validated
from perimetry.measures.ranking import auroc
from perimetry.runtime import generator

# scikit-learn is giving up `penalty`; with it and the ratio, versions before and after agree.
SAGA: dict[str, Any] = {"solver": "saga", "penalty": "elasticnet", "l1_ratio": 1.0}
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def problem(n: int, k: int, seed: int, *, sparse: bool = True, noise: float = 1.0) -> Labelled:
    """Latents-like rows (many zeros, columns of several scales) whose labels follow a plane, with noise."""
    draw = generator(seed)
    rows = torch.randn(n, k, generator=draw, dtype=torch.float64)
    if sparse:
        common = torch.randn(n, 1, generator=draw, dtype=torch.float64)
        rows = (rows + common / 2).clamp_min(0) * 3 * torch.rand(k, generator=draw, dtype=torch.float64)
    score = rows @ torch.randn(k, generator=draw, dtype=torch.float64) / math.sqrt(k)
    score += noise * torch.randn(n, generator=draw, dtype=torch.float64)
    return Labelled(rows, score > score.median())


def objective(found: Labelled, weights: torch.Tensor, intercept: float, strength: float, penalty: Penalty) -> float:
    scores = found.rows.double() @ weights + intercept
    losses = softplus(torch.where(found.labels, -scores, scores)).sum()
    price = weights.abs().sum() if penalty == "l1" else weights.square().sum() / 2
    return float(strength * losses + price)


def reference(found: Labelled, strength: float, penalty: Penalty) -> LogisticRegression:
    how: dict[str, Any] = SAGA if penalty == "l1" else {"solver": "newton-cg"}
    model = LogisticRegression(C=strength, tol=1e-7, max_iter=20_000, random_state=0, **how)
    return model.fit(found.rows.numpy(), found.labels.numpy())


def area(probe: Probe, found: Labelled) -> float:
    scores = probe.scores(found.rows)
    return auroc(scores[~found.labels], scores[found.labels])


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("strength", [0.05, 2.0])
@pytest.mark.parametrize("k", [1, 6])
def test_equals_scikit_learn(penalty: Penalty, strength: float, k: int) -> None:
    train, test = problem(120, k, 1), problem(200, k, 2)
    [[probe]] = fit([train], [strength], penalty)
    model = reference(train, strength, penalty)
    theirs = torch.tensor(model.coef_[0])
    assert probe.left < 1e-3
    assert probe.weights.numpy() == pytest.approx(theirs.numpy(), abs=3e-3)
    assert probe.intercept == pytest.approx(float(model.intercept_[0]), abs=5e-3)
    ours = objective(train, probe.weights, probe.intercept, strength, penalty)
    # saga is the one that is further from the optimum.
    assert ours <= objective(train, theirs, float(model.intercept_[0]), strength, penalty) * (1 + 1e-6)
    there = roc_auc_score(test.labels.numpy(), model.decision_function(test.rows.numpy()))
    assert area(probe, test) == pytest.approx(there, abs=1e-3)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_separable_rows_still_have_one_optimum(penalty: Penalty) -> None:
    train = problem(60, 4, 3, sparse=False, noise=0.0)
    [[probe]] = fit([train], [100.0], penalty)
    model = reference(train, 100.0, penalty)
    assert area(probe, train) == 1.0
    assert probe.left < 1e-3
    theirs = objective(train, torch.tensor(model.coef_[0]), float(model.intercept_[0]), 100.0, penalty)
    assert objective(train, probe.weights, probe.intercept, 100.0, penalty) <= theirs * (1 + 1e-6)
    assert probe.weights.numpy() == pytest.approx(model.coef_[0], rel=0.02, abs=0.02)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_constant_and_repeated_features_change_nothing(penalty: Penalty) -> None:
    train = problem(150, 3, 4)
    silent = Labelled(torch.cat([train.rows, torch.zeros(150, 2)], 1), train.labels)
    constant = Labelled(torch.cat([train.rows, torch.full((150, 1), 2.0)], 1), train.labels)
    [plain], [padded], [shifted] = fit([train, silent, constant], [1.0], penalty)
    assert padded.weights[:3].numpy() == pytest.approx(plain.weights.numpy(), abs=1e-4)
    assert padded.weights[3:].tolist() == [0.0, 0.0]
    # The free intercept can do all that a constant feature can, and pays nothing for it.
    assert shifted.weights.numpy() == pytest.approx([*plain.weights.tolist(), 0.0], abs=1e-3)


def test_twins_share_their_weight_without_changing_the_scores() -> None:
    train = problem(150, 2, 5)
    twins = Labelled(train.rows[:, [0, 0, 1]], train.labels)
    [plain], [double] = fit([train, twins], [1.0], "l1")
    assert float(double.weights[:2].sum()) == pytest.approx(float(plain.weights[0]), abs=1e-3)
    assert float(double.weights[2]) == pytest.approx(float(plain.weights[1]), abs=1e-3)


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(20, 90),
    k=st.integers(1, 12),
    seed=st.integers(0, 9999),
    strength=st.floats(1e-4, 1e4),
    sparse=st.booleans(),
    penalty=st.sampled_from(["l1", "l2"]),
)
def test_no_neighbour_is_lower(n: int, k: int, seed: int, strength: float, sparse: bool, penalty: Penalty) -> None:
    train = problem(n, k, seed, sparse=sparse, noise=0.3)
    [[probe]] = fit([train], [strength], penalty)
    here = objective(train, probe.weights, probe.intercept, strength, penalty)
    assert probe.left <= 1e-3 + 1e-12 * strength * float(train.rows.abs().sum())
    draw = generator(seed)
    for size in (1e-1, 1e-3):
        for _ in range(5):
            step = size * torch.randn(k + 1, generator=draw, dtype=torch.float64)
            there = objective(train, probe.weights + step[:-1], probe.intercept + float(step[-1]), strength, penalty)
            # Whoever stops at a subgradient of at most `left` cannot be beaten by more than it promises over the distance.
            assert there >= here - probe.left * float(step.abs().sum()) - 1e-9 * abs(here)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_the_whole_ladder_converges_where_rows_are_separable_and_few(penalty: Penalty) -> None:
    train = problem(80, 24, 6)
    [probes] = fit([train], STRENGTHS, penalty)
    assert [probe.strength for probe in probes] == list(STRENGTHS)
    assert max(probe.left for probe in probes) < 2e-3
    spent = [float(p.weights.abs().sum() if penalty == "l1" else p.weights.square().sum()) for p in probes]
    assert spent == sorted(spent, reverse=True)
    if penalty == "l1":
        assert float(probes[-1].weights.abs().sum()) == 0.0


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_a_batch_of_many_is_each_alone(penalty: Penalty) -> None:
    many = [problem(n, k, seed) for seed, (n, k) in enumerate([(100, 7), (40, 1), (90, 12), (30, 30)])]
    together = fit(many, [0.1, 10.0], penalty)
    for one, probes in zip(many, together, strict=True):
        [alone] = fit([one], [0.1, 10.0], penalty)
        for a, b in zip(alone, probes, strict=True):
            assert a.weights.numpy() == pytest.approx(b.weights.numpy(), abs=1e-4)
            assert area(a, one) == pytest.approx(area(b, one), abs=1e-3)


def test_more_features_than_rows_are_solved_in_the_span_of_the_rows() -> None:
    train = problem(40, 120, 7, sparse=False)
    [[probe]] = fit([train], [0.5], "l2")
    model = reference(train, 0.5, "l2")
    assert probe.weights.shape == (120,)
    assert probe.weights.numpy() == pytest.approx(model.coef_[0], abs=1e-4)
    assert validated([train], "l2")[0].weights.shape == (120,)


def test_large_chunks_are_cut_and_put_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [problem(50, k, k) for k in (3, 9, 1, 5)]
    whole = fit(many, [1.0], "l1")
    monkeypatch.setattr("perimetry.measures.logistic.CHUNK", 1)
    for a, b in zip(whole, fit(many, [1.0], "l1"), strict=True):
        assert a[0].weights.numpy() == pytest.approx(b[0].weights.numpy(), abs=1e-5)


def validated_by_hand(train: Labelled, penalty: Penalty) -> tuple[float, float]:
    """The choice of sae-probes, written with scikit-learn: strength and area on the last rows."""
    n = train.labels.numel()
    cut = n - min(int(0.2 * n), 100)
    x, y = train.rows.numpy(), train.labels.numpy()
    areas = []
    for strength in np.logspace(5, -5, 10):
        how: dict[str, Any] = SAGA if penalty == "l1" else {"solver": "newton-cg"}
        model = LogisticRegression(C=strength, tol=1e-6, max_iter=3000, random_state=0, **how).fit(x[:cut], y[:cut])
        areas.append(roc_auc_score(y[cut:], model.decision_function(x[cut:])))
    return float(np.logspace(5, -5, 10)[int(np.argmax(areas))]), float(max(areas))


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("seed", [10, 11])
def test_validation_chooses_as_sae_probes_does(penalty: Penalty, seed: int) -> None:
    train = problem(200, 3, seed, sparse=False, noise=1.0)
    [probe] = validated([train], penalty)
    strength, found = validated_by_hand(train, penalty)
    assert probe.validation == pytest.approx(found, abs=1e-3)
    assert probe.strength == pytest.approx(strength)
    [[again]] = fit([train], [probe.strength], penalty)
    assert probe.weights.numpy() == pytest.approx(again.weights.numpy(), abs=1e-3)


def test_of_equal_strengths_the_weakest_penalty_wins() -> None:
    rows = torch.arange(200.0)[torch.randperm(200, generator=generator(0))][:, None]
    [probe] = validated([Labelled(rows, rows[:, 0] > 99.5)], "l1")
    assert probe.validation == 1.0
    assert probe.strength == STRENGTHS[0]


def test_short_problems_use_six_stratified_folds() -> None:
    train = problem(127, 3, 12)
    first, second = validated([train], "l1", 0)[0], validated([train], "l1", 0)[0]
    assert first.strength == second.strength
    assert first.validation is not None
    assert 0.5 < first.validation <= 1
    # A mean over six folds, not the area on one: it moves with the seed of the folds.
    assert len({validated([train], "l1", seed)[0].validation for seed in range(4)}) > 1


def test_labels_that_say_nothing_score_one_half() -> None:
    train = problem(400, 4, 13)
    shuffled = Labelled(train.rows, train.labels[torch.randperm(400, generator=generator(1))])
    fresh = problem(2000, 4, 14)
    noise = torch.rand(2000, generator=generator(2)) < 0.5
    assert area(validated([shuffled], "l1")[0], Labelled(fresh.rows, noise)) == pytest.approx(0.5, abs=0.05)
    assert area(validated([train], "l1")[0], train) > 0.7


def test_half_precision_rows_are_taken_as_they_are() -> None:
    train = problem(100, 3, 15)
    half = Labelled(train.rows.bfloat16(), train.labels)
    exact = Labelled(half.rows.double(), train.labels)
    [a], [b] = fit([half, exact], [1.0], "l1")
    # Not bit for bit: some processors add up the two halves of a batch in another order.
    torch.testing.assert_close(a.weights, b.weights, rtol=1e-12, atol=1e-12)
    assert a.weights.dtype == torch.float64


def test_refuses_what_cannot_be_fitted() -> None:
    good = problem(50, 2, 16)
    with pytest.raises(
        TooFewSamples, match="problem 1 has 0 positives in 50 rows; a probe needs both classes; give both"
    ):
        fit([good, Labelled(good.rows, torch.zeros(50, dtype=torch.bool))], [1.0], "l1")
    with pytest.raises(TooFewSamples, match="problem 0 has 0 rows of 2 features; a probe needs rows and features"):
        fit([Labelled(torch.zeros(0, 2), torch.zeros(0, dtype=torch.bool))], [1.0], "l2")
    with pytest.raises(TooFewSamples, match="problem 0 has 50 rows of 0 features"):
        validated([Labelled(torch.zeros(50, 0), good.labels)], "l2")
    broken = good.rows.clone()
    broken[3, 1] = torch.nan
    with pytest.raises(
        NonFinite, match="problem 0 holds NaN or infinity; a probe reads finite numbers; leave those rows out"
    ):
        validated([Labelled(broken, good.labels)], "l1")
    with pytest.raises(UsageError, match=r"strengths = \[0.0\]: wanted one or more positive numbers; give some"):
        fit([good], [0.0], "l1")
    few = Labelled(good.rows[:20], torch.arange(20) < 5)
    with pytest.raises(
        TooFewSamples, match="a class has 5 of 20 rows; 6 validation folds need 6 of each; give more rows"
    ):
        validated([few], "l1")
    sorted_ = problem(300, 2, 17)
    with pytest.raises(
        TooFewSamples, match="the last 60 rows of problem 0 hold one class and cannot validate; shuffle the rows"
    ):
        validated([Labelled(sorted_.rows, torch.arange(300) < 150)], "l1")


def test_refuses_labels_of_another_length(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Labelled(torch.zeros(3, 1), torch.zeros(4, dtype=torch.bool))
    with pytest.raises(Incompatible, match="problem 0 has 3 rows and 4 labels; wanted a label a row; give both"):
        fit([pair], [1.0], "l1")
