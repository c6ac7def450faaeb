"""Estimates and intervals against scipy, and their coverage by simulation."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from perimetry.errors import NonFinite, TooFewSamples, UsageError
from perimetry.measures.stats import (
    beta_binomial_interval,
    beta_interval,
    bootstrap,
    ks_two_sample,
    ks_uniform,
    mean_interval,
    normal_quantile,
    resample_counts,
    spearman,
    wilson,
)

samples = st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=50)


@settings(deadline=None, max_examples=60)
@given(samples, st.sampled_from([0.8, 0.95, 0.99]))
def test_mean_interval_equals_scipy(values: list[float], confidence: float) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    assume(float(x.std()) > 1e-6)
    got = mean_interval(x, confidence)
    wanted = stats.ttest_1samp(x.numpy(), 0).confidence_interval(confidence)
    assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high), rel=1e-9, abs=1e-9)
    assert got.n == len(values)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_scipy(n: int, share: float, confidence: float) -> None:
    k = round(share * n)
    wanted = stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
    got = wilson(k, n, confidence)
    assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)
    assert got.low <= got.estimate <= got.high


def test_beta_intervals_equal_scipy() -> None:
    assert beta_interval(5, 96, 0.9) == pytest.approx((stats.beta(5, 96).ppf(0.05), stats.beta(5, 96).ppf(0.95)))
    law = stats.betabinom(200, 5, 96)
    low, high = beta_binomial_interval(200, 5, 96, 0.9)
    assert law.cdf(high * 200) - law.cdf(low * 200 - 1) >= 0.9
    assert law.cdf(low * 200 - 1) <= 0.05


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=4, max_size=40))
def test_spearman_equals_scipy_with_ties(pairs: list[tuple[int, int]]) -> None:
    a, b = torch.tensor(pairs, dtype=torch.float32).T
    assume(float(a.std()) > 0)
    assume(float(b.std()) > 0)
    got = spearman(a, b)
    assert got.estimate == pytest.approx(stats.spearmanr(a.numpy(), b.numpy())[0], abs=1e-9)
    assert got.low - 1e-12 <= got.estimate <= got.high + 1e-12


def test_spearman_of_a_constant_says_nothing() -> None:
    assert spearman(torch.ones(9), torch.arange(9.0))[:3] == (0.0, -1.0, 1.0)


def test_spearman_interval_covers() -> None:
    draw, rho, trials, inside = torch.Generator().manual_seed(0), 0.6, 1000, 0
    truth = 6 / math.pi * math.asin(rho / 2)
    for _ in range(trials):
        a = torch.randn(60, generator=draw)
        b = rho * a + math.sqrt(1 - rho * rho) * torch.randn(60, generator=draw)
        got = spearman(a, b)
        inside += got.low <= truth <= got.high
    assert 0.92 <= inside / trials <= 0.98


@settings(deadline=None, max_examples=60)
@given(samples, samples)
def test_ks_equals_scipy(a: list[float], b: list[float]) -> None:
    x, y = torch.tensor(a), torch.tensor(b)
    got = ks_two_sample(x, y)
    wanted = stats.ks_2samp(x.double().numpy(), y.double().numpy(), method="asymp")
    assert got.statistic == pytest.approx(wanted[0], abs=1e-9)
    assert 0 <= got.p_value <= 1


def test_ks_of_uniform_values_equals_scipy() -> None:
    x = torch.rand(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got, wanted = ks_uniform(x), stats.kstest(x.numpy(), "uniform", method="asymp")
    assert got.statistic == pytest.approx(wanted.statistic, abs=1e-12)
    assert got.p_value == pytest.approx(wanted.pvalue, abs=1e-6)
    assert ks_uniform(x.square()).p_value < 1e-6


def test_ks_p_values_are_calibrated() -> None:
    draw = torch.Generator().manual_seed(1)
    p = [ks_two_sample(*torch.randn(2, 80, generator=draw)).p_value for _ in range(1000)]
    assert sum(value <= 0.05 for value in p) / 1000 <= 0.05 + 4.5 * math.sqrt(0.05 * 0.95 / 1000)


def test_bootstrap_of_a_mean_is_like_the_t_interval() -> None:
    x = torch.randn(300, generator=torch.Generator().manual_seed(0))
    got = bootstrap(x, lambda rows: float(rows.mean()), torch.Generator().manual_seed(1), resamples=2000)
    wanted = mean_interval(x)
    assert got.estimate == pytest.approx(wanted.estimate, abs=1e-6)
    assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high), abs=0.02)
    again = bootstrap(x, lambda rows: float(rows.mean()), torch.Generator().manual_seed(1), resamples=2000)
    assert got == again
    assert got.method == "bootstrap 95 %"


def test_resamples_draw_each_unit_alike() -> None:
    counts = resample_counts(40, 5000, torch.Generator().manual_seed(0))
    assert bool((counts.sum(1) == 40).all())
    assert bool(((counts.mean(0) - 1).abs() < 4.5 / math.sqrt(5000)).all())
    assert float(counts.var(0).mean()) == pytest.approx(39 / 40, abs=0.02)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(TooFewSamples, match="a mean with an interval needs at least 2 values, got 1"):
        mean_interval(torch.ones(1))
    with pytest.raises(NonFinite, match="NaN or infinity"):
        mean_interval(torch.tensor([1.0, math.nan]))
    with pytest.raises(UsageError, match="5 successes of 4"):
        wilson(5, 4)
    with pytest.raises(UsageError, match="two equally long inputs, got 4 and 5"):
        spearman(torch.ones(4), torch.ones(5))
    with pytest.raises(UsageError, match=r"outside \(0, 1\)"):
        normal_quantile(95.0)
