"""Suites of one split, their scores in one run of the model, and draws that may be averaged."""

from typing import Any

import pytest
import torch
from tests.worlds import text_of

from perimetry.assets import Document
from perimetry.config import build
from perimetry.errors import UsageError
from perimetry.evals.rows import Row
from perimetry.measures.ranking import auroc
from perimetry.pipeline.study_config import StudyConfig, with_preset
from perimetry.pipeline.study_measure import arms_of, score_suites, study_suites, validation_rows
from perimetry.pipeline.study_saes import Cell, Quality, StudySAE
from perimetry.shift.meter import Meter
from perimetry.suites import Suite

DOCUMENTS = [Document(f"d{i}", text_of(f"d{i}", 60), {}) for i in range(12)]


def config(**values: Any) -> StudyConfig:
    return build(StudyConfig, with_preset({"suites": ["typos", "word_order"]} | values, "tiny"), "test")


@pytest.fixture(scope="module")
def suites(meter: Meter) -> list[Suite]:
    return study_suites(config(), meter.lm, DOCUMENTS, n=9, seed=3)


def test_suites_keep_the_doses_asked_for(meter: Meter, suites: list[Suite]) -> None:
    assert [suite.name for suite in suites] == ["typos", "word_order"]
    assert all({case.dose for case in suite.cases} == {0.0, 0.2, 0.5} for suite in suites)
    with pytest.raises(UsageError, match=r"suite 'typos' has no dose \[0.33\]; it has "):
        study_suites(config(doses=[0.33]), meter.lm, DOCUMENTS, n=9, seed=3)


def test_every_suite_gets_its_own_scores(meter: Meter, suites: list[Suite]) -> None:
    (tables,) = score_suites([meter], suites, 512, progress=False)
    assert [table.suite for table in tables] == suites
    for table in tables:
        cases = [table.suite.cases[i] for i in (0, 5, len(table.suite.cases) - 1)]
        readings = meter.score([case.text for case in cases], detectors=["l0", "nll.max"], explain=False)
        for i, reading in zip((0, 5, len(table.suite.cases) - 1), readings, strict=True):
            for name in ("l0", "nll.max"):
                assert float(table.scores.scores[name][i]) == pytest.approx(reading.scores[name], rel=1e-4)


def test_arms_pool_the_families_of_a_dose_and_draw_the_same_passages(meter: Meter, suites: list[Suite]) -> None:
    (tables,) = score_suites([meter], suites, 512, progress=False)
    order = tables[1]
    arms = arms_of(order, ["l0"], 7, 100)
    assert [arm.contrast.dose for arm in arms] == [0.2, 0.5]
    for arm in arms:
        assert (len(arm.contrast.clean), len(arm.contrast.shifted), arm.weights.pairs) == (9, 27, 9)
        assert torch.equal(arm.weights.clean, arms[0].weights.clean)
        values = order.scores.scores["l0"]
        shifted = [i for i, case in enumerate(order.suite.cases) if case.shifted and case.dose == arm.contrast.dose]
        clean = [i for i, case in enumerate(order.suite.cases) if not case.shifted]
        assert arm.areas["l0"] == pytest.approx(auroc(values[clean], values[shifted]))


def test_what_reads_no_sae_is_told_where_it_is_asked_for(meter: Meter, suites: list[Suite]) -> None:
    tables = score_suites([meter], suites[:1], 512, progress=False)
    sae, quality = StudySAE(Cell(1, "batchtopk", 64), 5), Quality(0.3, 6.0, 0.1, "x")
    alone = validation_rows([sae], tables, [quality], 100, alone=True)
    without = validation_rows([sae], tables, [quality], 100, alone=False)
    assert without == [row for row in alone if row.cell.architecture]
    assert {row.cell for row in alone} == {sae.cell, Cell(1, "", 0)}
    bare = [row for row in alone if not row.cell.architecture]
    assert {"nll", "mahalanobis", "length"} <= {row.measured.detector for row in bare}
    assert all((row.measured.seed, row.fvu, row.l0) == (0, None, None) for row in bare)
    assert all((row.measured.seed, row.fvu, row.l0) == (5, 0.3, 6.0) for row in without)
    assert all(isinstance(row.measured, Row) and row.measured.metric == "auroc" for row in alone)
    assert {row.measured.kind for row in without} == {"concept", "baseline"}, "some baselines read the SAE"
