"""Suffixes: the twin is the same request, as long, with running text behind it."""

from perimetry.assets.documents import Document
from perimetry.suites import SuiteInputs
from perimetry.suites.matching import TOLERANCE
from perimetry.suites.suffixes import build, suffixes
from suites.samples import documents, length, read

REQUESTS = [*documents("goal", 6, 12, kind="attack"), *documents("question", 6, 12, kind="benign")]
TAILS = [
    Document(f"gcg/{i}", " ".join(["]({", "\\+", "Voltion", "}};"] * (4 + i)), {"family": "gcg_suffixes"})
    for i in range(3)
]
CLEAN = documents("wiki", 10, 500)


def test_a_twin_keeps_the_request_and_the_length() -> None:
    suite = suffixes(REQUESTS, TAILS, CLEAN, length=length, limit=90, n=12, seed=1)
    by_id = {d.id: d.text for d in REQUESTS}
    shifted = {c.pair: c for c in suite.cases if c.shifted}
    assert set(shifted) == set(by_id)
    assert {c.family for c in shifted.values()} == {"gcg_suffixes/attack", "gcg_suffixes/benign"}
    for case in suite.cases:
        target = length(shifted[case.pair].text)
        assert abs(length(case.text) - target) <= TOLERANCE * target
        if case.family == "passage":
            assert any(case.text in document.text for document in CLEAN)
            continue
        assert case.text.startswith(by_id[case.pair] + " ")
        end = case.text.removeprefix(by_id[case.pair] + " ")
        assert (end in {tail.text for tail in TAILS}) == case.shifted
        assert any(end in document.text for document in CLEAN) != case.shifted
    assert suite.matching["without_a_twin"] == 0
    assert [row["negatives"] for row in suite.matching["lengths"]] == ["twin", "passage"]


def test_a_request_is_cut_so_that_the_suffix_stays_whole() -> None:
    requests = documents("long", 3, 80, kind="attack")
    suite = suffixes(requests, TAILS, CLEAN, length=length, limit=50, n=3, seed=1)
    for case in suite.cases:
        assert length(case.text) <= 50 * (1 + TOLERANCE)
        assert not case.shifted or case.text.endswith("}};")


def test_suffixes_that_leave_no_room_are_counted() -> None:
    long = Document("gcg/long", "x " * 60, {"family": "gcg_suffixes"})
    suite = suffixes(REQUESTS, [long, *TAILS], CLEAN, length=length, limit=40, n=4, seed=1)
    assert suite.matching["suffixes_too_long"] == 1


def test_the_table_gives_both_kinds_every_suffix_file() -> None:
    suite = build(SuiteInputs(CLEAN, [], [], length, 90, 30, 60, 3, read))
    assert set(suite.matching["families"]) == {
        f"{file}/{kind}" for file in ("adaptive_suffixes", "gcg_suffixes") for kind in ("attack", "benign")
    }
