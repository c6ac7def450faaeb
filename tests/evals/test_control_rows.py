"""What is expected of a control, and whether a row says rightly that it holds."""

import pytest
import torch
from scipy.stats import kstwobign

from perimetry.errors import UnknownName
from perimetry.evals.control_rows import (
    ABOVE,
    BY_CHANCE,
    EXPECTED,
    HALF,
    NOT_ABOVE,
    RARE,
    control_row,
    ks_row,
)
from perimetry.measures.stats import Interval, ks_two_sample, ks_uniform


@pytest.mark.parametrize(
    ("expected", "estimate", "low", "high", "holds"),
    [
        (ABOVE, 0.2, 0.1, 0.3, True),
        (ABOVE, 0.2, 0.0, 0.3, False),
        (ABOVE, -0.2, -0.3, -0.1, False),
        (NOT_ABOVE, 0.2, 0.0, 0.3, True),
        (NOT_ABOVE, -0.2, -0.3, -0.1, True),
        (NOT_ABOVE, 0.2, 0.01, 0.3, False),
        (HALF, 0.6, 0.5, 0.7, True),
        (HALF, 0.6, 0.51, 0.7, False),
        (HALF, 0.4, 0.3, 0.49, False),
        (RARE, 0.08, 0.05, 0.12, True),
        (RARE, 0.01, 0.0, 0.02, True),
        (RARE, 0.09, 0.06, 0.12, False),
        (BY_CHANCE, 0.1, 0.0, 0.1, True),
        (BY_CHANCE, 0.11, 0.0, 0.1, False),
    ],
)
def test_each_expectation_by_hand(expected: str, estimate: float, low: float, high: float, holds: bool) -> None:
    row = control_row("x", "l0", "auroc", Interval(estimate, low, high, 9, "how"), expected=expected, dose=0.2, seed=3)
    assert row.holds is holds
    assert row.to_json() == {
        **{"control": "x", "detector": "l0", "against": "", "dose": 0.2, "metric": "auroc", "expected": expected},
        **{"holds": holds, "estimate": estimate, "low": low, "high": high, "n": 9, "seed": 3, "method": "how"},
    }


def test_every_expectation_is_among_the_cases_above() -> None:
    assert set(EXPECTED) == {ABOVE, NOT_ABOVE, HALF, RARE, BY_CHANCE}


def test_where_nothing_is_expected_nothing_holds_or_fails() -> None:
    assert control_row("x", "l0", "auroc", Interval(0.1, 0.0, 0.2, 9, "how")).holds is None


def test_an_unknown_expectation_is_refused() -> None:
    with pytest.raises(UnknownName, match="unknown expectation 'above zero'; the nearest name is 'above 0'"):
        control_row("x", "l0", "auroc", Interval(0.1, 0.0, 0.2, 9, "how"), expected="above zero")


@pytest.mark.parametrize("other", [None, 60])
@pytest.mark.parametrize("power", [0.6, 1.0])
def test_a_distance_holds_exactly_where_its_p_value_does(other: int | None, power: float) -> None:
    draw = torch.Generator().manual_seed(4)
    seen = torch.rand(200, generator=draw, dtype=torch.float64) ** power
    rival = torch.rand(60, generator=draw, dtype=torch.float64)
    test = ks_uniform(seen) if other is None else ks_two_sample(seen, rival)
    for significance in (test.p_value * 0.99, test.p_value * 1.01):
        row = ks_row("p", "l0", test, n=200, against_n=other, significance=significance, against="all", seed=2)
        assert row.holds is (test.p_value > significance)
        size = 200 if other is None else 200 * 60 / 260
        assert row.high == pytest.approx(float(kstwobign.isf(significance)) / size**0.5)
        assert (row.estimate, row.low, row.n, row.against, row.seed) == (test.statistic, 0.0, 200, "all", 2)
        assert f"p = {test.p_value:.3g}" in row.method
