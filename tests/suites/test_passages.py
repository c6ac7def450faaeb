"""Cutting at whole words; near copies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perimetry.assets.documents import Document
from perimetry.errors import TooFewSamples
from perimetry.suites.passages import cut_to_tokens, distinct, passages
from suites.samples import documents, length, prose


@given(st.text(st.sampled_from("ab \n"), max_size=80), st.integers(0, 30))
def test_the_cut_is_the_longest_beginning_that_fits(text: str, limit: int) -> None:
    cut = cut_to_tokens(text, limit, length)
    assert text.startswith(cut)
    assert length(cut) <= limit
    words = text.split()
    assert cut.split() == words[: len(cut.split())]
    if len(cut.split()) < len(words):
        assert length(" ".join(words[: len(cut.split()) + 1])) > limit


def test_passages_have_the_words_asked_for_and_do_not_overlap() -> None:
    sources = documents("d", 6, 50)
    found = passages(sources, words=12, n=20, seed=3)
    assert [len(piece.text.split()) for piece in found] == [12] * 20
    assert len({piece.id for piece in found}) == 20
    assert {piece.id.split("@")[0] for piece in found[:6]} == {d.id for d in sources}
    by_id = {d.id: d.text.split() for d in sources}
    for piece in found:
        name, start = piece.id.split("@")
        assert by_id[name][int(start) : int(start) + 12] == piece.text.split()
    assert found == passages(sources, words=12, n=20, seed=3)
    assert found != passages(sources, words=12, n=20, seed=4)


def test_too_few_words_are_refused_with_both_numbers() -> None:
    with pytest.raises(TooFewSamples, match="2 documents give 0 passages of 60 words; wanted 5"):
        passages(documents("d", 2, 20), words=60, n=5, seed=0)


def test_near_copies_are_left_out_and_others_kept() -> None:
    text = prose(1, 80)
    copy = Document("copy", text.replace("river", "stream").upper() + " and more", {})
    sources = [Document("first", text, {}), copy, *documents("d", 5, 80), Document("short", "hello you", {})]
    assert [d.id for d in distinct(sources)] == ["first", "d0", "d1", "d2", "d3", "d4", "short"]
