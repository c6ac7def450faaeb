"""Ranking measures against scikit-learn, their intervals against each other and by simulation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from perimetry.errors import NonFinite, TooFewSamples, UnknownName, UsageError
from perimetry.measures.ranking import (
    auroc,
    auroc_interval,
    average_precision,
    bootstrap_ranking,
    bootstrap_rankings,
    compare_rankings,
    delong_difference,
    fpr_at_tpr,
    tpr_at_fpr,
)

# Few distinct values, so that ties are common.
scores = st.lists(st.integers(-4, 4), min_size=1, max_size=40)


def labelled(clean: list[int], shifted: list[int]) -> tuple[list[int], list[int]]:
    return [0] * len(clean) + [1] * len(shifted), clean + shifted


@settings(deadline=None, max_examples=150)
@given(scores, scores)
def test_areas_equal_sklearn(clean: list[int], shifted: list[int]) -> None:
    c, s = torch.tensor(clean).float(), torch.tensor(shifted).float()
    labels, values = labelled(clean, shifted)
    assert auroc(c, s) == pytest.approx(metrics.roc_auc_score(labels, values), abs=1e-12)
    assert average_precision(c, s) == pytest.approx(metrics.average_precision_score(labels, values), abs=1e-12)


@settings(deadline=None, max_examples=150)
@given(scores, scores, st.sampled_from([0.0, 0.01, 0.05, 0.3, 0.95, 1.0]))
def test_error_rates_equal_sklearn(clean: list[int], shifted: list[int], level: float) -> None:
    c, s = torch.tensor(clean).float(), torch.tensor(shifted).float()
    false, true, _ = metrics.roc_curve(*labelled(clean, shifted), drop_intermediate=False)
    assert tpr_at_fpr(c, s, level) == pytest.approx(max(true[false <= level + 1e-12]), abs=1e-12)
    assert fpr_at_tpr(c, s, level) == pytest.approx(
        min(false[1:][true[1:] >= level - 1e-12]) if level else min(false[1:]), abs=1e-12
    )


def pairs(n: int, gain: float, seed: int, detectors: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean and shifted scores of twins: the pair's own level is shared by both and by all detectors."""
    draw = torch.Generator().manual_seed(seed)
    level = torch.randn(n, generator=draw)
    clean = level + 0.7 * torch.randn(detectors, n, generator=draw)
    return clean, level + gain + 0.7 * torch.randn(detectors, n, generator=draw)


@pytest.mark.parametrize("metric", ["auroc", "average_precision", "fpr95", "tpr01"])
def test_the_bootstrap_equals_a_loop_over_resamples(metric: str) -> None:
    clean, shifted = pairs(60, 1.0, 0)
    clean, shifted = (clean * 3).round(), (shifted * 3).round()
    plain = {
        "auroc": auroc,
        "average_precision": average_precision,
        "fpr95": lambda c, s: fpr_at_tpr(c, s, 0.95),
        "tpr01": lambda c, s: tpr_at_fpr(c, s, 0.01),
    }[metric]
    picks = torch.randint(0, 60, (200, 60), generator=torch.Generator().manual_seed(1))
    draws = torch.tensor([plain(clean[0, rows], shifted[0, rows]) for rows in picks], dtype=torch.float64)
    got = bootstrap_ranking(clean[0], shifted[0], torch.Generator().manual_seed(1), metric=metric, resamples=200)
    wanted = torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    assert got.estimate == pytest.approx(plain(clean[0], shifted[0]), abs=1e-6)
    assert (got.low, got.high) == pytest.approx(wanted, abs=1e-5)
    assert (got.n, got.method) == (60, "paired bootstrap 95 %")


def test_intervals_by_pair_cover_and_delong_agrees() -> None:
    inside = {"paired": 0, "delong": 0, "apart": 0}
    truth = 0.5 * math.erfc(-1 / math.sqrt(2 * (1 + 0.49)) / math.sqrt(2))
    trials = 400
    for seed in range(trials):
        clean, shifted = pairs(80, 1.0, seed)
        draw = torch.Generator().manual_seed(seed)
        boxes = {
            "paired": bootstrap_ranking(clean[0], shifted[0], draw, resamples=300),
            "delong": auroc_interval(clean[0], shifted[0], pairs=True),
            "apart": auroc_interval(clean[0], shifted[0], pairs=False),
        }
        for name, box in boxes.items():
            inside[name] += box.low <= truth <= box.high
    assert 0.90 <= inside["paired"] / trials <= 0.985
    assert 0.90 <= inside["delong"] / trials <= 0.985
    # Twins that agree make the true spread smaller than the unpaired formula says.
    assert inside["apart"] / trials > inside["delong"] / trials


def test_delong_by_hand() -> None:
    """DeLong et al. 1988 with two clean and two shifted prompts: components (1, 0.75)... worked on paper."""
    clean, shifted = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 4.0])
    # By shifted prompt: 0.5 and 1; by clean prompt: 1 and 0.5. Each variance is 0.125, over 2 prompts: 0.0625 each.
    box = auroc_interval(clean, shifted, pairs=False)
    assert box.estimate == 0.75
    assert box.low == pytest.approx(0.75 - 1.959964 * math.sqrt(0.125), abs=1e-5)
    # As twins the components add to 1.5 and 1.5: no spread at all.
    assert auroc_interval(clean, shifted, pairs=True)[:3] == (0.75, 0.75, 0.75)


def test_differences_find_the_better_and_only_the_better() -> None:
    clean, shifted = pairs(300, 1.0, 7, detectors=3)
    shifted[1] -= 0.6
    draw = torch.Generator().manual_seed(0)
    worse, alike = compare_rankings(clean, shifted, draw, resamples=500)
    assert worse.low > 0
    assert worse.p_value < 0.01
    assert alike.low < 0 < alike.high
    exact = delong_difference(clean[:2], shifted[:2], pairs=True)
    assert exact.estimate == pytest.approx(worse.estimate, abs=1e-6)
    assert (exact.low, exact.high) == pytest.approx((worse.low, worse.high), abs=0.015)
    same = delong_difference(clean[[0, 0]], shifted[[0, 0]], pairs=True)
    assert same[:4] == (0.0, 0.0, 0.0, 1.0)


def test_delong_p_values_are_calibrated() -> None:
    hits = 0
    for seed in range(500):
        clean, shifted = pairs(100, 0.5, seed, detectors=2)
        hits += delong_difference(clean, shifted, pairs=True).p_value <= 0.05
    assert abs(hits / 500 - 0.05) <= 4.5 * math.sqrt(0.05 * 0.95 / 500)


def test_many_detectors_share_their_resamples() -> None:
    clean, shifted = pairs(50, 1.0, 3, detectors=2)
    both = bootstrap_rankings(clean, shifted, torch.Generator().manual_seed(0), resamples=100)
    one = bootstrap_ranking(clean[1], shifted[1], torch.Generator().manual_seed(0), resamples=100)
    assert both[1] == one
    apart = bootstrap_rankings(clean, shifted[:, :30], torch.Generator().manual_seed(0), pairs=False, resamples=100)
    assert (apart[0].n, apart[0].method) == (30, "bootstrap 95 %")


def test_wrong_input_is_refused() -> None:
    with pytest.raises(TooFewSamples, match="got 0 and 2"):
        auroc(torch.zeros(0), torch.zeros(2))
    with pytest.raises(NonFinite, match="NaN or infinity"):
        auroc(torch.tensor([math.nan]), torch.zeros(2))
    with pytest.raises(UsageError, match="one shifted prompt to each clean one, got 2 and 3"):
        bootstrap_ranking(torch.zeros(2), torch.zeros(3), torch.Generator().manual_seed(0))
    with pytest.raises(UnknownName, match="unknown ranking metric 'aurok'; the nearest name is 'auroc'"):
        bootstrap_ranking(torch.zeros(2), torch.zeros(2), torch.Generator().manual_seed(0), metric="aurok")
    with pytest.raises(UsageError, match="compares two detectors, got 1"):
        delong_difference(torch.zeros(1, 3), torch.zeros(1, 3), pairs=True)
    with pytest.raises(TooFewSamples, match="at least 2 clean and 2 shifted"):
        auroc_interval(torch.zeros(1), torch.zeros(1), pairs=True)
