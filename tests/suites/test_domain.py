"""Domains: matched in length, spread evenly, tables that are tables."""

import random
from collections import Counter

from perimetry.suites import SuiteInputs
from perimetry.suites.domain import DOMAINS, build, domain, table
from perimetry.suites.matching import CUT, TOLERANCE
from suites.samples import documents, length, read

CLEAN = documents("wiki", 10, 500)


def test_every_text_has_a_clean_passage_of_its_length() -> None:
    texts = {"code": documents("code", 20, 60), "legal": documents("legal", 20, 15)}
    suite = domain(texts, CLEAN, length=length, limit=40, n=16, seed=2)
    novel = {c.pair: c for c in suite.cases if c.shifted}
    clean = {c.pair: c for c in suite.cases if not c.shifted}
    assert Counter(c.family for c in novel.values()) == {"code": 8, "legal": 8}
    assert set(novel) == set(clean)
    for pair, case in clean.items():
        assert abs(length(case.text) - length(novel[pair].text)) <= TOLERANCE * length(novel[pair].text)
        assert any(case.text in document.text for document in CLEAN)
    cut = [c for c in novel.values() if c.id.endswith(CUT)]
    assert {c.family for c in cut} == {"code"}
    assert suite.matching["cut_to_limit"] == len(cut) == 8
    assert suite.matching["lengths"][0]["n_clean"] == 16
    assert "no attack" in suite.description


def test_near_copies_are_counted_once() -> None:
    texts = {"news": [*documents("a", 3, 40), *(d._replace(id=d.id + "b") for d in documents("a", 3, 40))]}
    suite = domain(texts, CLEAN, length=length, limit=90, n=6, seed=0)
    assert suite.matching["near_copies_left_out"] == 3
    assert suite.matching["families"] == {"news": 3}


def test_the_table_reads_the_named_sources_and_keeps_to_their_labels() -> None:
    suite = build(SuiteInputs(CLEAN, [], [], length, 90, 30, 24, 3, read))
    novel = [c for c in suite.cases if c.shifted]
    assert {c.family for c in novel} == {*DOMAINS, "tables"}
    for case in novel:
        if case.family in ("legal", "messages"):
            row = int(case.pair.rpartition("/")[2])
            assert row % 2 == (case.family == "messages"), "the label of the even rows is bigram, of the odd ones 0"


def test_tables_are_rectangular_and_follow_the_seed() -> None:
    kinds: set[str] = set()
    for seed in range(20):
        text = table(random.Random(seed))
        assert text == table(random.Random(seed))
        mark = "|" if text.startswith("|") else ","
        kinds.add(mark)
        assert len({line.count(mark) for line in text.splitlines()}) == 1
        assert len(text.splitlines()) >= 25
    assert kinds == {"|", ","}
