"""The comparison of summaries against a plain computation, what it finds and what it leaves alone."""

import numpy as np
import pytest
from tests.monitor.drift.traffic import rows_of

from perimetry.monitor.drift.mmd import SummaryTest


def naive(clean: np.ndarray, own: np.ndarray, seen: np.ndarray, group: np.ndarray) -> float:
    """The weighted sum over all pairs of different prompts, prompt by prompt."""
    centre = np.median(clean, 0)
    spread = 1.4826 * np.median(np.abs(clean - centre), 0)
    rows = np.clip(np.concatenate([clean - centre, seen - centre]) / spread, -8, 8)
    apart = ((rows[:, None] - rows[None]) ** 2).sum(-1)
    width = np.median(apart[: len(clean), : len(clean)][np.triu_indices(len(clean), 1)])
    shares = [np.mean(group == g) / np.sum(own == g) for g in own]
    weights = np.concatenate([-np.array(shares), np.full(len(seen), 1 / len(seen))])
    pairs = weights[:, None] * weights[None] * np.exp(-apart / (2 * width))
    return float(pairs.sum() - np.trace(pairs))


def test_the_statistic_is_the_weighted_sum_over_pairs() -> None:
    draw = np.random.default_rng(0)
    (own, clean), (group, seen) = rows_of(draw, 60), rows_of(draw, 40, turn=0.4)
    found = SummaryTest(clean, own, 1_000, 0).judge(seen, group, draw, 99)
    assert found is not None
    assert found.tested.statistic == pytest.approx(naive(clean, own, seen, group), rel=1e-3)


def test_it_sees_what_the_score_does_not_show() -> None:
    draw = np.random.default_rng(1)
    own, clean = rows_of(draw, 400)
    test = SummaryTest(clean, own, 300, 0)
    group, seen = rows_of(draw, 200, turn=0.8)
    found = test.judge(seen, group, draw, 999)
    assert found is not None
    assert found.tested.p_value == 1 / 1000
    assert found.effect.value > 0.7
    assert found.effect.low < found.effect.value < found.effect.high


def test_another_mix_of_groups_is_no_difference() -> None:
    """The groups lie three deviations apart, and the window has nine of one for each of the other."""
    draw, small = np.random.default_rng(2), 0
    own, clean = rows_of(draw, 400)
    test = SummaryTest(clean, own, 300, 0)
    for _ in range(60):
        group, seen = rows_of(draw, 100, long=0.9)
        found = test.judge(seen, group, draw, 199)
        assert found is not None
        small += found.tested.p_value <= 0.05
        assert abs(found.effect.value - 0.5) < 0.25
    # 5 % of 60 is 3; binomial, 4.5 standard errors above are 10.6.
    assert small <= 10


def test_order_and_units_do_not_matter() -> None:
    draw = np.random.default_rng(3)
    (own, clean), (group, seen) = rows_of(draw, 80), rows_of(draw, 60, turn=0.3)
    one = SummaryTest(clean, own, 60, 0).judge(seen, group, np.random.default_rng(0), 199)
    shuffled = draw.permutation(60)
    other = SummaryTest(clean, own, 60, 0).judge(seen[shuffled], group[shuffled], np.random.default_rng(0), 199)
    assert one is not None
    assert other is not None
    assert other.tested.p_value == pytest.approx(one.tested.p_value)
    scale = np.array([1e3, 1.0, 1e-3, 5.0, 1.0, 1.0])
    units = SummaryTest(clean * scale, own, 60, 0).judge(seen * scale, group, np.random.default_rng(0), 199)
    assert units is not None
    assert units.tested.statistic == pytest.approx(one.tested.statistic, rel=1e-3)


def test_what_cannot_be_compared_is_left_out() -> None:
    draw = np.random.default_rng(4)
    own, clean = rows_of(draw, 80)
    test = SummaryTest(np.concatenate([clean, np.ones((80, 1))], 1), own, 60, 0)
    group, seen = rows_of(draw, 50)
    seen = np.concatenate([seen, np.full((50, 1), 9.0)], 1)
    assert test.judge(seen, np.full(50, -1), draw, 99) is None
    found = test.judge(seen, np.where(np.arange(50) < 25, group, -1), draw, 99)
    assert found is not None
    assert found.tested.p_value > 0.01


def test_wild_numbers_do_not_decide_alone() -> None:
    draw = np.random.default_rng(5)
    own, clean = rows_of(draw, 200)
    group, seen = rows_of(draw, 100)
    seen[0] = 1e30
    found = SummaryTest(clean, own, 200, 0).judge(seen, group, draw, 199)
    assert found is not None
    assert found.tested.p_value > 0.01
