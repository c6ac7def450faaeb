"""Rows over seeds, and what they say of an expectation."""

import pytest

from perimetry.labs.base import Asked, Column, Expectation, Job, Measured, Outcome
from perimetry.labs.judging import answered, judged, rows_of


def found(values: list[float], metric: str = "rebound") -> dict[Job, Outcome]:
    return {Job("deep", seed): Outcome([Measured(metric, v)], {}) for seed, v in enumerate(values)}


def test_a_row_a_seed_and_one_of_all_with_an_interval() -> None:
    rows = rows_of(found([1.0, 2.0, 3.0]))
    assert [(r.seed, r.estimate) for r in rows] == [(0, 1.0), (1, 2.0), (2, 3.0), (None, 2.0)]
    assert (rows[0].low, rows[0].high, rows[0].n) == (1.0, 1.0, 1)
    assert (rows[3].low, rows[3].high) == (pytest.approx(-0.484, abs=1e-3), pytest.approx(4.484, abs=1e-3))
    assert rows[3].n == 3


def test_an_interval_within_a_seed_is_kept_and_what_is_no_number_is_left_out() -> None:
    outcome = Outcome([Measured("auroc", 0.9, "l0", 0.8, 0.95, 100), Measured("time", float("inf"))], {})
    rows = rows_of({Job("count", 0): outcome})
    assert {(r.metric, r.case, r.low, r.high, r.n) for r in rows if r.seed == 0} == {("auroc", "l0", 0.8, 0.95, 100)}
    assert {r.metric for r in rows} == {"auroc"}


@pytest.mark.parametrize(("needed", "verdict"), [(0.75, "holds"), (1.0, "fails")])
def test_as_many_seeds_as_are_needed(needed: float, verdict: str) -> None:
    wanted = Expectation("deep", "rebound", "it rises", least=1.05, needed=needed)
    (one,) = judged([wanted], rows_of(found([1.2, 1.1, 1.3, 1.0])), "all")
    assert (one["so"], one["n"], one["verdict"], one["decides"]) == (3, 4, verdict, True)
    assert one["share_low"] < 0.75 < one["share_high"]


def test_bounds_hold_at_their_ends_and_on_both_sides() -> None:
    both = Expectation("deep", "rebound", "near 1", least=0.9, most=1.1)
    assert [both.satisfied(v) for v in (0.89, 0.9, 1.1, 1.11)] == [False, True, True, False]


def test_where_only_controls_are_judged_the_others_do_not_decide() -> None:
    wanted = [
        Expectation("deep", "rebound", "it rises", least=2),
        Expectation("deep", "rebound", "it does not", most=1.5, control=True),
        Expectation("absent", "rebound", "nobody ran it", most=1.5),
    ]
    said = judged(wanted, rows_of(found([1.2, 1.3])), "controls")
    assert [(one["verdict"], one["decides"]) for one in said] == [("fails", False), ("holds", True)]


def test_a_question_is_a_table_of_what_was_measured() -> None:
    outcomes = {
        Job("deep", seed): Outcome(
            [Measured("auroc", v, f"{name}, far") for name, v in (("l0", v), ("norm", 0.5), ("l0 or norm", v))], {}
        )
        for seed, v in enumerate((0.7, 0.9))
    }
    asked = Asked(
        "Is it far?",
        "AUROC.",
        (Column("far", "deep", "auroc", "{score}, far"), Column("near", "deep", "auroc", "{score}, near")),
        ("l0", "norm", "nll", "l0 or norm"),
    )
    other = Asked("Of another arm?", "AUROC.", (Column("far", "wide", "auroc"),), ("l0",))
    (one,) = answered((asked, other), rows_of(outcomes))
    assert one["columns"] == ["far"], "nothing was measured near"
    assert [(row["score"], row["concepts"]) for row in one["scores"]] == [
        *(("l0", True), ("norm", False)),
        ("l0 or norm", True),
    ]
    assert one["scores"][0]["cells"][0] == pytest.approx([0.8, -0.47, 2.07, 2], abs=0.01)


def test_a_seed_without_the_number_counts_against_and_one_without_weights_does_not() -> None:
    outcomes = {Job("deep", seed): Outcome([Measured("loss", 1.0)], {}) for seed in range(3)}
    outcomes[Job("deep", 0)] = Outcome([Measured("loss", 1.0), Measured("rebound", 1.2)], {})
    wanted = [Expectation("deep", name, "it rises", least=1.05, needed=0.5) for name in ("rebound", "never")]
    one, never = judged(wanted, rows_of(outcomes), "all")
    assert (one["verdict"], one["so"], one["n"], one["estimate"]) == ("fails", 1, 3, 1.2)
    assert (never["verdict"], never["so"], never["n"], never["estimate"]) == ("fails", 0, 3, None)
    absent = {Job("deep", seed): Outcome([Measured("weights at hand", 0.0)], {}) for seed in range(3)}
    assert judged(wanted, rows_of(absent), "all") == []
