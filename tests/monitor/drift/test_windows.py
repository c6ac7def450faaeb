"""A window against the calibration: quiet where nothing drifts, and what is said where something does."""

import numpy as np
import pytest
from scipy import stats
from tests.monitor.drift.traffic import GROUPS, baseline_of_rows, quick, rows_of

from perimetry.measures.relabelling import ks_within_groups, relabeller
from perimetry.monitor.drift.reference import STRANGE, Reference, WindowRows
from perimetry.monitor.drift.windows import Judgement, judge_window


def judged(seed: int = 0, *, width: int = 6, n: int = 100, clean: int = 400, **more: float) -> dict[str, Judgement]:
    config, draw = quick(), np.random.default_rng([3, seed])
    reference = Reference(baseline_of_rows(*rows_of(draw, clean), width=width), config)
    group, summaries = rows_of(draw, n, **more)
    return {one.name: one for one in judge_window(reference, WindowRows(group, summaries[:, :width]), seed, config)}


def test_false_watches_are_as_rare_as_the_budget_says() -> None:
    """40 calibrations of 200 prompts, 20 windows of 50 each, KS and MMD with their gates, as the service judges.

    Levels of .05 instead of .0025, so that so few windows can tell: at most .1 per window for both, plus 4.5 standard errors
    clustered by calibration. The p-values alone are held to each level.
    """
    config = quick(level=0.05, permutations=199, points=100)
    watches, small = np.zeros(40), np.zeros((40, 2))
    for run in range(40):
        draw = np.random.default_rng([11, run])
        reference = Reference(baseline_of_rows(*rows_of(draw, 200)), config)
        for number in range(20):
            found = judge_window(reference, WindowRows(*rows_of(draw, 50)), number, config)
            watches[run] += any(one.alarms for one in found)
            small[run] += [one.tested.p_value <= 0.05 for one in found if one.name != "group_mix"]
    rates = watches / 20
    assert rates.mean() <= 0.1 + 4.5 * rates.std(ddof=1) / 40**0.5
    for column in (small / 20).T:
        assert abs(column.mean() - 0.05) <= 4.5 * column.std(ddof=1) / 40**0.5


def test_p_values_reach_the_level_of_the_service_as_often_as_they_should() -> None:
    """KS alone, at .0025: 2,000 windows over 100 calibrations, of which 5 are expected; 4.5 clustered standard errors above at most."""
    hits = np.zeros(100)
    for run in range(100):
        draw = np.random.default_rng([13, run])
        clean = draw.normal(size=120)
        for _ in range(20):
            found = ks_within_groups([(clean, draw.normal(size=30))], relabeller(draw), 1_999, enough=10)
            hits[run] += found.p_value <= 0.0025
    rates = hits / 20
    assert rates.mean() <= 0.0025 + 4.5 * max(rates.std(ddof=1), (0.0025 / 20) ** 0.5) / 100**0.5
    assert hits.sum() > 0


def test_a_shift_of_the_score_is_found_by_its_ranks() -> None:
    found = judged(shift=0.8)
    ks = found["ks"]
    assert ks.tested.p_value == 1 / 1000
    assert ks.over
    assert ks.alarms
    assert ks.effect.name == "auroc"
    assert ks.effect.low < stats.norm.cdf(0.8 / 2**0.5) < ks.effect.high
    assert not found["group_mix"].over


def test_what_the_score_does_not_show_is_found_by_the_summaries() -> None:
    found = judged(turn=0.9)
    assert found["mmd"].alarms
    assert found["mmd"].effect.value >= 0.6
    assert not found["ks"].over


def test_another_mix_is_reported_and_never_alarms() -> None:
    found = judged(long=0.9, n=200)
    assert found["group_mix"].over
    assert found["group_mix"].effect.value == pytest.approx(0.4, abs=0.1)
    assert not any(one.alarms for one in found.values())


def test_significance_alone_is_not_enough() -> None:
    """Very many prompts, a very small difference."""
    found = judged(n=9_000, clean=9_000, shift=0.1, width=1)
    ks = found["ks"]
    assert ks.tested.p_value <= 0.0025
    assert abs(ks.effect.value - 0.5) < 0.05
    assert not ks.over


def test_a_wider_spread_is_told_by_its_distance() -> None:
    """The middle stays where it is, so that the AUROC is near .5."""
    config, draw = quick(), np.random.default_rng(5)
    group, clean = rows_of(draw, 600)
    reference = Reference(baseline_of_rows(group, clean, width=1), config)
    seen = draw.normal(size=(400, 1)) * 2.0
    (ks, _) = judge_window(reference, WindowRows(np.zeros(400, np.int64), seen), 0, config)
    assert ks.over
    assert ks.effect.name == "wasserstein1"
    assert 0.2 <= ks.effect.low < ks.effect.value < ks.effect.high


def test_the_tests_that_cannot_be_made_are_left_out() -> None:
    assert list(judged(width=1)) == ["ks", "group_mix"]
    config, draw = quick(), np.random.default_rng(6)
    reference = Reference(baseline_of_rows(*rows_of(draw, 100)), config)
    _, summaries = rows_of(draw, 60)
    strangers = judge_window(reference, WindowRows(np.full(60, STRANGE), summaries), 0, config)
    assert [one.name for one in strangers] == ["group_mix"]
    assert strangers[0].over
    assert strangers[0].effect.value == pytest.approx(1.0)
    assert list(reference.places) == list(GROUPS)


def test_a_window_is_judged_alike_each_time_and_in_any_order() -> None:
    config, draw = quick(), np.random.default_rng(7)
    reference = Reference(baseline_of_rows(*rows_of(draw, 200)), config)
    group, summaries = rows_of(draw, 60)
    order = draw.permutation(60)
    first = judge_window(reference, WindowRows(group, summaries), 3, config)
    again = judge_window(reference, WindowRows(group, summaries), 3, config)
    other = judge_window(reference, WindowRows(group[order], summaries[order]), 3, config)
    assert first == again
    assert [one.tested.p_value for one in first] == pytest.approx([one.tested.p_value for one in other])
    said = first[0].said()
    assert said["effect_ci95"] == [first[0].effect.low, first[0].effect.high]
