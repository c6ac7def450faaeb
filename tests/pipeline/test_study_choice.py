"""The choice of a study: means by its rule, ties, what is missing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perimetry.config import build
from perimetry.errors import UsageError
from perimetry.evals.rows import Row
from perimetry.pipeline.study_choice import Score, choose, rule_in_words, scores_of
from perimetry.pipeline.study_config import StudyConfig
from perimetry.pipeline.study_measure import StudyRow
from perimetry.pipeline.study_saes import Cell

SAE = Cell(6, "topk", 64)
BARE = Cell(6, "", 0)


def row(
    value: float, *, cell: Cell = SAE, suite: str = "typos", dose: float = 0.1, seed: int = 0, **more: Any
) -> StudyRow:
    fields: dict[str, Any] = {
        **{"suite": suite, "family": "all", "dose": dose, "negatives": "all", "detector": "l0", "kind": "concept"},
        **{"metric": "auroc", "against": "", "best_baseline": False, "selection": "", "estimate": value, "low": 0.0},
        **{"high": 1.0, "n_shifted": 9, "n_clean": 9, "n_pairs": 9, "seed": seed, "method": "none"},
    }
    return StudyRow("validation", cell, Row(**(fields | more)), 0.2, 40.0)


def score(mean: float, cell: Cell = SAE, detector: str = "l0", kind: Any = "concept") -> Score:
    return Score(cell, detector, kind, mean, mean, mean, 1)


def test_doses_then_suites_then_seeds() -> None:
    rows = [row(0.6, dose=0.1), row(0.8, dose=0.2), row(0.9, suite="order")]
    rows += [row(0.5, dose=0.1, seed=1), row(0.5, dose=0.2, seed=1), row(0.7, suite="order", seed=1)]
    (mean,) = scores_of(rows, "mean")
    assert (mean.mean, mean.least, mean.greatest, mean.seeds) == pytest.approx((0.7, 0.6, 0.8, 2))
    (least,) = scores_of(rows, "least")
    assert (least.mean, least.least, least.greatest) == pytest.approx((0.6, 0.5, 0.7))


def test_cells_and_detectors_are_kept_apart() -> None:
    other = Cell(12, "topk", 64)
    rows = [
        row(0.6),
        row(0.7, cell=other),
        row(0.8, detector="energy"),
        row(0.9, cell=BARE, detector="nll", kind="baseline"),
    ]
    found = {(s.cell, s.detector, s.kind): s.mean for s in scores_of(rows, "mean")}
    assert found == {
        (SAE, "l0", "concept"): 0.6,
        (other, "l0", "concept"): 0.7,
        (SAE, "energy", "concept"): 0.8,
        (BARE, "nll", "baseline"): 0.9,
    }


def test_the_best_of_each_kind_is_chosen_and_the_others_counted() -> None:
    low, high = score(0.6), score(0.8, Cell(12, "standard", 64), "energy")
    bare, reads = score(0.9, BARE, "nll", "baseline"), score(0.95, SAE, "recon_error", "baseline")
    found = choose([low, bare, high, reads])
    assert (found.concept, found.baseline, found.concepts, found.baselines) == (high, reads, 2, 2)
    plain = found.to_json()
    assert plain["chosen"]["layer"] == 12
    assert plain["chosen"]["architecture"] == "standard"
    assert plain["compared"] == {"concept": 2, "baseline": 2}


@given(st.permutations(range(5)))
def test_of_equals_the_first_is_chosen_in_any_order(order: list[int]) -> None:
    equal = [
        score(0.8, Cell(12, "standard", 64)),
        score(0.8, Cell(6, "topk", 128)),
        score(0.8, SAE, "l0"),
        score(0.8, SAE, "energy"),
        score(0.5, BARE, "nll", "baseline"),
    ]
    assert choose([equal[i] for i in order]).concept == equal[3]


def test_both_kinds_are_wanted() -> None:
    with pytest.raises(UsageError, match="no baseline among 1 scores; wanted one of each kind to choose from"):
        choose([score(0.5)])
    with pytest.raises(UsageError, match="no concept among 0 scores"):
        choose([])


def test_the_rule_is_said() -> None:
    said = rule_in_words(build(StudyConfig, {"rule": "least", "suites": ["typos", "ocr"]}, "x"))
    assert "validation suites (typos, ocr): the mean over doses, the least over suites, the mean over seeds" in said
    assert "the mean over suites" in rule_in_words(StudyConfig())


def test_rows_survive_json() -> None:
    first = row(0.625, cell=BARE)._replace(fvu=None, l0=None)
    for one in (first, row(0.5)):
        plain = one.to_json()
        assert all(isinstance(v, str | int | float | bool | type(None)) for v in plain.values())
        assert StudyRow.from_json(plain) == one
