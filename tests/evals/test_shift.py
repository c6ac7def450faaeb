"""The benchmark on synthetic scores whose AUROC is known."""

import json

import pytest
import torch

from evals.samples import area, dial, gaussian, matched
from perimetry.errors import TooFewSamples, UnknownName, UsageError
from perimetry.evals import EVALS
from perimetry.evals.rows import Row
from perimetry.evals.scores import ScoreTable
from perimetry.evals.shift import BenchConfig, BenchResult, bench

QUICK = BenchConfig(resamples=300)
GAINS = {"l0": 2.0, "surprise": 4.0, "surprise.top10": 4.4, "nll": 2.0, "knn": 2.4}
SUITE = dial(300)


@pytest.fixture(scope="module")
def result() -> BenchResult:
    return bench(lambda cases: gaussian(cases, GAINS), SUITE, main="surprise", seed=7, config=QUICK)


def pick(rows: list[Row], **wanted: object) -> list[Row]:
    return [row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())]


def test_areas_are_the_known_ones_within_their_intervals(result: BenchResult) -> None:
    rows = pick(result.rows, metric="auroc")
    assert len(rows) == len(GAINS) * 3
    truth = [area(GAINS[row.detector] * row.dose) for row in rows]
    assert all(abs(row.estimate - true) < 0.05 for row, true in zip(rows, truth, strict=True))
    assert sum(row.low <= true <= row.high for row, true in zip(rows, truth, strict=True)) >= len(rows) - 2
    for row in rows:
        assert (row.n_shifted, row.n_clean, row.n_pairs, row.seed) == (300, 300, 300, 7)
        assert row.method == "bootstrap by pair 95 %"
        assert 0 < row.high - row.low < 0.12


def test_every_detector_has_every_metric_at_every_dose(result: BenchResult) -> None:
    for name in GAINS:
        kind = "concept" if name.startswith(("l0", "surprise")) else "baseline"
        own = pick(result.rows, detector=name, selection="", kind=kind)
        assert {(row.metric, row.dose) for row in own} == {
            *((metric, dose) for metric in ("auroc", "fpr_at_95_tpr", "tpr_at_1_fpr") for dose in (0.05, 0.2, 0.5)),
            ("spearman_dose", 0.0),
            ("rising_steps", 0.0),
        }


def test_a_planted_better_score_beats_the_baselines_beyond_its_interval(result: BenchResult) -> None:
    rows = pick(result.rows, metric="auroc_difference", dose=0.5, selection="main")
    assert {(row.against, row.best_baseline) for row in rows} == {("nll", False), ("knn", True)}
    assert all(row.detector == "surprise" and row.low > 0 for row in rows)
    areas = {row.detector: row.estimate for row in pick(result.rows, metric="auroc", dose=0.5)}
    assert all(row.estimate == pytest.approx(areas["surprise"] - areas[row.against]) for row in rows)


def test_the_post_hoc_best_is_reported_beside_the_choice_and_labelled(result: BenchResult) -> None:
    areas = {row.detector: row.estimate for row in pick(result.rows, metric="auroc", dose=0.5, kind="concept")}
    rows = pick(result.rows, metric="auroc_difference", dose=0.5, selection="post_hoc")
    assert {row.detector for row in rows} == {max(areas, key=lambda name: areas[name])}


def test_doses_rise(result: BenchResult) -> None:
    (rising,) = pick(result.rows, metric="rising_steps", detector="surprise")
    (spearman,) = pick(result.rows, metric="spearman_dose", detector="surprise")
    assert rising.estimate == 1.0
    assert spearman.low > 0.4
    assert (spearman.n_pairs, spearman.n_shifted, spearman.n_clean) == (300, 900, 300)


def test_golden_numbers(result: BenchResult) -> None:
    found = {
        (row.detector, row.metric): (row.estimate, row.low, row.high)
        for row in pick(result.rows, dose=0.2)
        if row.detector in ("surprise", "nll") and not row.selection
    }
    assert found["surprise", "auroc"] == pytest.approx((0.7291889, 0.6894, 0.7615161), abs=1e-6)
    assert found["nll", "auroc"] == pytest.approx((0.6197778, 0.5833111, 0.653255), abs=1e-6)


def test_clean_against_clean_gives_one_half_within_the_interval() -> None:
    found = bench(lambda c: gaussian(c, dict.fromkeys(GAINS, 0.0)), SUITE, main="l0", config=QUICK)
    rows = pick(found.rows, metric="auroc")
    assert sum(row.low <= 0.5 <= row.high for row in rows) >= len(rows) - 2
    assert all(abs(row.estimate - 0.5) < 0.08 for row in rows)
    differences = pick(found.rows, metric="auroc_difference", selection="main", best_baseline=False)
    assert all(row.low <= 0 for row in differences)


def test_shuffled_labels_give_one_half() -> None:
    table = gaussian(SUITE.cases, {"surprise": 9.0, "nll": 9.0})
    order = torch.randperm(len(SUITE.cases), generator=torch.Generator().manual_seed(3))
    shuffled = ScoreTable({name: values[order] for name, values in table.scores.items()}, table.kinds)
    rows = pick(bench(lambda _: shuffled, SUITE, main="surprise", config=QUICK).rows, metric="auroc")
    assert sum(row.low <= 0.5 <= row.high for row in rows) >= len(rows) - 1


def test_the_direction_is_never_turned_round() -> None:
    found = bench(lambda c: gaussian(c, {"surprise": -6.0, "nll": 2.0}), SUITE, main="surprise", config=QUICK)
    (row,) = pick(found.rows, metric="auroc", detector="surprise", dose=0.5)
    assert row.high < 0.5
    assert all(r.high < 0 for r in pick(found.rows, metric="auroc_difference", dose=0.5))


def test_attacks_by_family_and_by_kind_of_negative() -> None:
    suite = matched(90)
    found = bench(lambda c: gaussian(c, {"surprise": 2.0, "nll": 0.0}), suite, main="surprise", config=QUICK)
    arms = {(row.family, row.negatives): row for row in pick(found.rows, metric="auroc", detector="surprise")}
    assert set(arms) == {("dan", "all"), ("tap", "all"), ("all", "all"), ("all", "passage"), ("all", "prompt")}
    assert (arms["all", "prompt"].n_shifted, arms["all", "prompt"].n_pairs) == (60, 60)
    assert (arms["all", "all"].n_shifted, arms["all", "all"].n_clean) == (90, 150)
    assert all(row.low < area(2.0) < row.high + 0.03 for row in arms.values())
    assert not pick(found.rows, metric="spearman_dose")


def test_curves_agree_with_the_rows(result: BenchResult) -> None:
    (curve,) = [c for c in result.roc if c.detector == "surprise" and c.dose == 0.5]
    (row,) = pick(result.rows, metric="tpr_at_1_fpr", detector="surprise", dose=0.5)
    assert curve.tpr[curve.fpr.index(0.01)] == row.estimate
    assert list(curve.tpr) == sorted(curve.tpr)
    assert {c.detector for c in result.roc} >= {"surprise", "nll"}


def test_rows_are_plain_json_and_the_same_every_time(result: BenchResult) -> None:
    again = bench(lambda cases: gaussian(cases, GAINS), SUITE, main="surprise", seed=7, config=QUICK)
    assert json.dumps([row.to_json() for row in result.rows], allow_nan=False) == json.dumps(
        [row.to_json() for row in again.rows]
    )
    assert EVALS["shift"] is bench


def test_what_cannot_be_measured_is_refused() -> None:
    def score(cases: object) -> ScoreTable:
        return gaussian(SUITE.cases, GAINS)

    with pytest.raises(UnknownName, match="unknown detector 'suprise'; the nearest name is 'surprise'"):
        bench(score, SUITE, main="suprise")
    with pytest.raises(UsageError, match="main score 'nll' is a baseline; wanted a concept score"):
        bench(score, SUITE, main="nll")
    with pytest.raises(TooFewSamples, match="no contrast of suite 'dial' has 8 pairs"):
        bench(lambda cases: gaussian(cases, GAINS), dial(7), main="l0")


def test_a_small_family_is_counted_among_all_only() -> None:
    suite = matched(14)
    found = bench(lambda cases: gaussian(cases, GAINS), suite, main="l0", config=QUICK)
    assert {row.family for row in found.rows} == {"all"}
    config = BenchConfig(resamples=300, minimum_pairs=7)
    whole = bench(lambda cases: gaussian(cases, GAINS), suite, main="l0", config=config)
    assert {row.family for row in whole.rows} == {"all", "dan", "tap"}
