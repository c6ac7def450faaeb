"""Sentences follow the rows, whichever way they went."""

from typing import Any

import pytest

from perimetry.report.schema import Results, parse_results
from perimetry.report.verdicts import Verdict, verdicts
from report.samples import results

BASE: dict[str, Any] = {
    "suite": "typos",
    "family": "typos",
    "dose": 0.2,
    "negatives": "all",
    "detector": "surprise",
    "kind": "concept",
    "n_shifted": 90,
    "n_clean": 90,
    "n_pairs": 90,
    "seed": 0,
    "method": "bootstrap by pair 95 %",
}


def made(*rows: dict[str, Any], **more: Any) -> Results:
    given = {"command": "c", "version": "0", "hardware": "h", "date": "d", "main": "surprise"}
    return parse_results({**given, "rows": [{**BASE, **row} for row in rows], **more})


def difference(low: float, high: float, **more: Any) -> dict[str, Any]:
    middle = (low + high) / 2
    row = {"metric": "auroc_difference", "against": "nll", "selection": "main", "estimate": middle}
    return {**row, "low": low, "high": high, **more}


AREA = {"metric": "auroc", "estimate": 0.956, "low": 0.94, "high": 0.97}


@pytest.mark.parametrize(
    ("low", "high", "tone", "words"),
    [
        (0.01, 0.03, "good", "surprise beats the baseline nll by .020 AUROC (interval .010 to .030)"),
        (-0.03, -0.01, "bad", "surprise loses to the baseline nll by .020 AUROC (difference: interval −.030 to −.010)"),
        (
            -0.01,
            0.03,
            "open",
            "surprise minus the baseline nll is .010 AUROC, interval −.010 to .030, which includes zero",
        ),
    ],
)
def test_a_difference_is_told_as_its_interval_says(low: float, high: float, tone: str, words: str) -> None:
    found = verdicts(made(AREA, difference(low, high)))
    assert found[0] == Verdict(
        "plain", "typos: the main score surprise reaches AUROC .956 (interval .940 to .970, 90 pairs)."
    )
    assert found[1] == Verdict(tone, f"typos: {words}.")  # pyright: ignore[reportArgumentType]


def test_a_seed_that_fails_takes_the_tick_away() -> None:
    seed = {k: BASE[k] for k in ("suite", "family", "dose", "negatives", "detector")}
    seed |= {"metric": "auroc_difference", "against": "nll", "selection": "main", "seeds": 3}
    seed |= {"mean": 0.01, "least": -0.02, "greatest": 0.03}
    for every, tone in ((True, "good"), (False, "open")):
        found = verdicts(made(AREA, difference(0.01, 0.03), seeds=[{**seed, "every_interval_above_zero": every}]))
        assert found[1].tone == tone
        assert "3 SAE seeds: mean .010, least −.020" in found[1].text


def test_a_better_score_after_the_fact_is_told_but_is_no_headline() -> None:
    found = verdicts(made(AREA, {**AREA, "detector": "energy", "estimate": 0.99}))
    assert [v.tone for v in found] == ["plain", "note"]
    assert "the best concept score after the fact is energy, AUROC .990" in found[1].text


def test_doses_and_false_alarms_go_both_ways() -> None:
    steps = {"metric": "rising_steps", "dose": 0.0, "estimate": 0.75, "low": 0.5, "high": 1.0}
    alarm = {"group": "tokens 1-39", "alpha": 0.05, "realised": 0.2, "low": 0.0, "high": 0.1}
    alarm |= {"n_test": 50, "n_calibration": 99, "inside": False}
    bad = verdicts(made(AREA, steps, false_alarms=[alarm]))
    assert bad[-2] == Verdict("bad", "typos: the mean of surprise does not rise with every dose for typos.")
    assert bad[-1].tone == "bad"
    assert "in 1 of 1 checks: tokens 1-39 at 0.05 (.200)" in bad[-1].text
    good = verdicts(made(AREA, {**steps, "estimate": 1.0}, false_alarms=[{**alarm, "inside": True}]))
    assert [v.tone for v in good[-2:]] == ["good", "good"]


def test_the_headline_is_the_dose_of_twenty_percent() -> None:
    assert verdicts(parse_results(results((0,), 40)))[0].text.startswith("typos, 20 %: the main score surprise")
