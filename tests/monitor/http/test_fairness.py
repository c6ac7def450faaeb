"""The arithmetic without numpy agrees with scipy, and with the definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, false_discovery_control

from perimetry.monitor.http.fairness import beta_quantile, discoveries, fpr_interval


@given(st.integers(1, 2000), st.integers(1, 20_000), st.floats(0.001, 0.999))
def test_quantiles_agree_with_scipy(a: int, b: int, q: float) -> None:
    assert beta_quantile(float(a), float(b), q) == pytest.approx(float(beta.ppf(q, a, b)), abs=1e-10)


@given(st.integers(19, 20_000), st.floats(0.001, 0.5))
def test_the_interval_holds_the_middle_of_the_rate(n: int, alpha: float) -> None:
    low, high = fpr_interval(alpha, n)
    k = int(alpha * (n + 1) + 1e-9)
    if k == 0:
        assert (low, high) == (0.0, 0.0)
    else:
        assert low < k / (n + 1) < high
        covered = beta.cdf(high, k, n + 1 - k) - beta.cdf(low, k, n + 1 - k)
        assert covered == pytest.approx(0.95, abs=1e-8)


def test_a_product_that_is_whole_but_for_rounding_is_whole() -> None:
    assert 0.29 * 100 < 29
    assert fpr_interval(0.29, 99) == fpr_interval(0.2900001, 99)


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=64), st.sampled_from([0.01, 0.05, 0.2, 0.5]))
def test_discoveries_agree_with_scipy(p_values: list[float], q: float) -> None:
    adjusted = false_discovery_control(p_values, method="bh")
    clear = [i for i, value in enumerate(adjusted) if abs(value - q) > 1e-7]
    found = set(discoveries(p_values, q))
    assert [i for i in clear if i in found] == [i for i in clear if adjusted[i] <= q]


def test_a_p_value_at_the_edge_counts() -> None:
    assert discoveries([0.05 / 3, 0.05 * 2 / 3, 0.05], 0.05) == [0, 1, 2]
    assert discoveries([1.0], 0.5) == []
