"""Sizes of differences against second computations, and the coverage of their intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from perimetry.monitor.drift.effects import scaled, stratified_auroc, wasserstein, wasserstein_effect
from perimetry.monitor.drift.mix import group_mix

samples = st.lists(st.integers(-5, 5), min_size=1, max_size=20).map(lambda x: np.array(x, dtype=float))
groups = st.lists(st.tuples(samples, samples), min_size=1, max_size=3)


@settings(deadline=None, max_examples=100)
@given(groups)
def test_auroc_is_the_share_of_pairs_within_groups(found: list[tuple[np.ndarray, np.ndarray]]) -> None:
    window = sum(seen.size for _, seen in found)
    wanted = sum(
        seen.size / window * np.mean([(x > y) + 0.5 * (x == y) for x in seen for y in clean]) for clean, seen in found
    )
    effect = stratified_auroc(found)
    assert effect.value == pytest.approx(float(wanted))
    assert 0 <= effect.low <= effect.value <= effect.high <= 1


@settings(deadline=None, max_examples=100)
@given(groups)
def test_wasserstein_is_scipys(found: list[tuple[np.ndarray, np.ndarray]]) -> None:
    window = sum(seen.size for _, seen in found)
    units = scaled(found)
    clean, seen = (np.concatenate([group[side] for group in units]) for side in (0, 1))
    weights = np.concatenate([np.full(c.size, s.size / window / c.size) for c, s in found])
    assert wasserstein(found) == pytest.approx(stats.wasserstein_distance(clean, seen, weights), abs=1e-9)


def test_scaling_survives_groups_without_spread() -> None:
    (clean, seen), *_ = scaled([(np.zeros(5), np.array([2.0]))])
    assert (clean.tolist(), seen.tolist()) == ([0.0] * 5, [2.0])
    (clean, _), *_ = scaled([(np.array([0.0, 0.0, 0.0, 0.0, 10.0]), np.array([2.0]))])
    assert float(clean.std()) == pytest.approx(1.0)


def test_the_interval_of_the_auroc_covers() -> None:
    draw, truth = np.random.default_rng(0), float(stats.norm.cdf(0.5 / 2**0.5))
    hits = 0
    for _ in range(600):
        found = [(draw.normal(size=150), draw.normal(0.5, size=40)), (draw.normal(size=60), draw.normal(0.5, size=60))]
        effect = stratified_auroc(found)
        hits += effect.low <= truth <= effect.high
    # 95 %, less 4.5 standard errors of 600 trials.
    assert hits / 600 >= 0.91


def test_the_interval_of_the_distance_lies_around_it() -> None:
    draw, hits = np.random.default_rng(1), 0
    for _ in range(60):
        found = [(draw.normal(size=400), draw.normal(1.0, size=200))]
        effect = wasserstein_effect(found, draw)
        assert effect.low < effect.value < effect.high
        hits += effect.low < 1.0 < effect.high
    # A shift is its own distance. The unit is estimated too, which no resample varies: nearer 90 % than 95 %, less 4.5 standard errors of 60.
    assert hits / 60 >= 0.72


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=2, max_size=4))
def test_the_mix_of_groups_is_pearsons_test(counts: list[tuple[int, int]]) -> None:
    clean, seen = np.array([c for c, _ in counts]), np.array([s for _, s in counts])
    if not seen.sum():
        return
    tested, effect = group_mix(clean, seen, np.random.default_rng(0))
    wanted = stats.chi2_contingency(np.stack([clean, seen]), correction=False)
    assert tested.statistic == pytest.approx(float(wanted.statistic), abs=1e-9)
    assert tested.p_value == pytest.approx(float(wanted.pvalue), abs=1e-9)
    assert effect.value == pytest.approx(0.5 * np.abs(clean / clean.sum() - seen / seen.sum()).sum())
    assert 0 <= effect.low <= effect.high <= 1


def test_a_group_that_the_calibration_does_not_know_is_another_mix() -> None:
    tested, effect = group_mix(np.array([100, 100, 0]), np.array([40, 40, 20]), np.random.default_rng(0))
    assert tested.p_value < 1e-6
    assert effect.value == pytest.approx(0.2)
