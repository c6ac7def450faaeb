"""The false-alarm table: exact intervals, by simulation; and what it refuses."""

import pytest
import torch
from scipy import stats

from perimetry.errors import TooFewSamples, UsageError
from perimetry.evals.false_alarms import false_alarms, p_histograms, p_uniformity
from perimetry.shift.conformal import conformal_p


def p_values(seed: int, n_calibration: int, n_test: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    calibration = torch.randn(n_calibration, generator=draw).sort().values
    return conformal_p(calibration, torch.randn(n_test, generator=draw))


def test_all_rows_of_a_table_lie_inside_together_about_as_often_as_promised() -> None:
    tables = [false_alarms(p_values(seed, 199, 150), ["a", "b"] * 75, [199] * 150) for seed in range(400)]
    assert {(r.alpha, r.n_test, r.n_calibration) for r in tables[0]} == {(a, 75, 199) for a in (0.01, 0.05, 0.1)}
    assert sum(all(row.inside for row in table) for table in tables) / len(tables) > 0.94


def test_a_lower_confidence_gives_narrower_intervals() -> None:
    wide, narrow = (false_alarms(p_values(0, 199, 150), ["g"] * 150, [199] * 150, confidence=c) for c in (0.95, 0.5))
    assert all(w.low <= n.low and w.high >= n.high for w, n in zip(wide, narrow, strict=True))
    assert sum(n.high - n.low for n in narrow) < 0.7 * sum(w.high - w.low for w in wide)


def test_a_meter_that_alarms_too_often_is_found_outside() -> None:
    rows = false_alarms(p_values(0, 199, 400) / 3, ["a", "b"] * 200, [199] * 400)
    assert [row.group for row in rows] == ["a", "a", "a", "b", "b", "b"]
    assert not any(row.inside for row in rows if row.alpha >= 0.05)
    assert all(row.realised > row.high for row in rows if row.alpha >= 0.05)


def test_histograms_count_every_prompt_once_in_bins_closed_above() -> None:
    (histogram,) = p_histograms(torch.tensor([0.05, 0.0501, 1.0, 0.5]), ["g"] * 4, bins=20)
    assert histogram.counts == (1, 1, *([0] * 7), 1, *([0] * 9), 1)
    uniform = p_histograms(p_values(1, 999, 1000), ["g"] * 1000)[0]
    assert sum(uniform.counts) == 1000
    assert uniform.ks < 0.06


def test_a_p_value_of_exactly_alpha_is_an_alarm_in_single_precision() -> None:
    rows = false_alarms(torch.tensor([0.01, 0.05, 0.1, 0.9]), ["g"] * 4, [99] * 4)
    assert [row.realised for row in rows] == [0.25, 0.5, 0.75]


def test_bad_input_is_refused() -> None:
    with pytest.raises(TooFewSamples, match="no clean test prompt"):
        false_alarms(torch.tensor([]), [], [])
    with pytest.raises(UsageError, match="2 p-values, 1 groups and 2 calibration sizes"):
        false_alarms(torch.tensor([0.1, 0.2]), ["a"], [9, 9])
    with pytest.raises(UsageError, match=r"group 'a' was judged against \[9, 10\] calibration prompts"):
        false_alarms(torch.tensor([0.1, 0.2]), ["a", "a"], [9, 10])


def test_uniformity_is_the_two_sample_test_of_scipy() -> None:
    draw = torch.Generator().manual_seed(5)
    calibration, test = torch.randn(150, generator=draw).sort().values, torch.randn(90, generator=draw) + 0.1
    (row,) = p_uniformity(conformal_p(calibration, test), ["g"] * 90, [150] * 90)
    wanted = stats.ks_2samp(test.numpy(), calibration.numpy(), method="asymp")
    exact = stats.ks_2samp(test.numpy(), calibration.numpy(), method="exact")
    assert row.statistic == pytest.approx(float(wanted.statistic))
    assert row.p_value == pytest.approx(float(exact.pvalue), abs=0.06)
    assert (row.n_test, row.n_calibration) == (90, 150)


def test_uniformity_holds_its_level_although_test_prompts_share_a_calibration_set() -> None:
    """Against the uniform distribution alone a test set this large would be found at fault far more often."""
    found = [p_uniformity(p_values(s, 100, 400), ["a", "b"] * 200, [100] * 400) for s in range(300)]
    wrong = sum(not all(row.uniform for row in rows) for rows in found)
    assert wrong <= stats.binom.ppf(0.999, 300, 0.05)
    alone = sum(
        any(h.ks_p_value < 0.025 for h in p_histograms(p_values(s, 100, 400), ["a", "b"] * 200)) for s in range(300)
    )
    assert alone > 2 * stats.binom.ppf(0.999, 300, 0.05)


def test_p_values_that_are_not_uniform_are_found() -> None:
    rows = p_uniformity(p_values(0, 199, 400).square(), ["a", "b"] * 200, [199] * 400)
    assert [row.group for row in rows] == ["a", "b"]
    assert not any(row.uniform for row in rows)
    assert rows[0].to_json()["uniform"] is False
    with pytest.raises(UsageError, match=r"group 'a' was judged against \[9, 10\] calibration prompts"):
        p_uniformity(torch.tensor([0.1, 0.2]), ["a", "a"], [9, 10])
