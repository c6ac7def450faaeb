"""Checks of a suite, and the measure of matching against scipy."""

from typing import Any

import pytest
from scipy import stats

from perimetry.errors import TooFewSamples, UsageError
from perimetry.suites.base import Case, Suite, check_suite, compare_lengths
from suites.samples import length, prose


def suite(*cases: Case) -> Suite:
    return Suite("mine", "A suite.", cases, {})


def test_a_suite_needs_both_kinds() -> None:
    with pytest.raises(TooFewSamples, match="'mine' has 1 shifted and 0 clean cases; wanted at least one of each"):
        check_suite(suite(Case("a", "x", "a", "f", 1.0, True)))


def test_no_family_stands_for_all() -> None:
    with pytest.raises(UsageError, match="a family called 'all', which stands for all families together; rename it"):
        check_suite(suite(Case("a", "x", "a", "all", 1.0, True), Case("b", "y", "a", "f", 0.0, False)))


def test_ids_are_unique() -> None:
    with pytest.raises(UsageError, match="uses an id twice"):
        check_suite(suite(Case("a", "x", "a", "f", 1.0, True), Case("a", "y", "a", "f", 0.0, False)))


def test_lengths_are_compared_as_scipy_does() -> None:
    one, other = [prose(i, 5 + i) for i in range(20)], [prose(i, 9 + i) for i in range(30)]
    found = compare_lengths(one, other, length)
    oracle: Any = stats.ks_2samp([*map(length, one)], [*map(length, other)])
    assert found["ks_tokens"] == pytest.approx(oracle.statistic)
    assert (found["n_shifted"], found["n_clean"], found["words_shifted"]) == (20, 30, 14.5)
    assert found["ks_words"] > 0.3
