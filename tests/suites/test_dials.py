"""Dial suites: twins share a pair, doses nest, matching is measured."""

import itertools
from collections.abc import Callable

import pytest

from perimetry.suites import SUITES, Suite, SuiteInputs
from perimetry.suites.asr import asr
from perimetry.suites.case import case
from perimetry.suites.code_switch import code_switch
from perimetry.suites.gibberish import gibberish
from perimetry.suites.ocr import ocr
from perimetry.suites.random_tokens import random_tokens
from perimetry.suites.typos import TYPO_DOSES, typos
from perimetry.suites.word_order import word_order
from suites.samples import documents, length, read


@pytest.mark.parametrize("builder", [typos, case, word_order, asr, code_switch, gibberish, ocr, random_tokens])
def test_every_passage_has_a_twin_at_every_dose(builder: Callable[..., Suite]) -> None:
    sources = documents("d", 5, 40)
    suite = builder(sources, length=length, seed=1)
    assert suite.name == builder.__name__
    clean = {c.pair: c for c in suite.cases if not c.shifted}
    assert {c.text for c in clean.values()} == {d.text for d in sources}
    assert all(c.dose == 0 and c.family == "clean" for c in clean.values())
    twins = [c for c in suite.cases if c.shifted]
    families, doses = {c.family for c in twins}, {c.dose for c in twins}
    assert len(twins) == 5 * len(families) * len(doses)
    for twin in twins:
        assert twin.text != clean[twin.pair].text
        assert len(twin.text.split()) == len(clean[twin.pair].text.split())
    assert len(suite.matching["doses"]) == len(families) * len(doses)
    assert all(row["unchanged"] == 0 and row["ks_words"] == 0 for row in suite.matching["doses"])
    assert suite == builder(sources, length=length, seed=1)
    assert suite != builder(sources, length=length, seed=2)


def test_typo_twins_nest_and_grow_with_the_dose() -> None:
    sources = documents("d", 4, 130)
    suite = typos(sources, length=length, seed=0)
    for source in sources:
        words = source.text.split()
        twins = sorted((c for c in suite.cases if c.pair == source.id and c.shifted), key=lambda c: c.dose)
        assert [c.dose for c in twins] == list(TYPO_DOSES)
        changed = [{i for i, w in enumerate(c.text.split()) if w != words[i]} for c in twins]
        assert all(less < more for less, more in itertools.pairwise(changed))
        eligible = sum(len(w) >= 3 for w in words)
        assert [len(c) for c in changed] == [max(1, int(d * eligible + 0.5)) for d in TYPO_DOSES]


def test_the_share_that_was_changed_is_told_where_the_dose_is_less_than_one_word() -> None:
    suite = typos(documents("d", 6, 40), length=length, seed=0)
    rows = {row["dose"]: row["realised_dose"] for row in suite.matching["doses"]}
    assert rows[0.01] == rows[0.02] > 0.02, "one word of some forty"
    assert rows[0.5] == pytest.approx(0.5, abs=0.02)


def test_kinds_can_be_families() -> None:
    suite = typos(documents("d", 3, 30), length=length, seed=0, kinds=("deletion", "insertion"), doses=(0.5,))
    shorter = {c.family: len(c.text) for c in suite.cases if c.pair == "d0"}
    assert shorter["deletion"] < shorter["clean"] < shorter["insertion"]


@pytest.mark.parametrize("name", sorted(SUITES))
def test_every_suite_of_the_table_builds(name: str) -> None:
    inputs = SuiteInputs(
        clean=documents("wiki", 12, 130),
        attacks=documents("attack", 8, 70, family="dan"),
        benign=documents("benign", 12, 120),
        length=length,
        limit=180,
        words=30,
        n=6,
        seed=5,
        read=read,
    )
    suite = SUITES[name](inputs)
    assert suite.name == name
    assert suite.cases == SUITES[name](inputs).cases
    assert len({c.pair for c in suite.cases}) == 6
    assert {c.shifted for c in suite.cases} == {True, False}
