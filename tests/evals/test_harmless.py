"""Harmless rewrites keep the words, in number and order, and say what they did."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.evals.harmless import KINDS, OTHER, rewritten

WORDS = st.lists(st.sampled_from(["the", "colour", "Center,", "don't", '"so"', "日本", "x"]), min_size=1, max_size=12)


def plain(text: str) -> list[str]:
    """The words with curly quotes made straight and spellings put into one form."""
    straight = text.translate(str.maketrans("‘’“”", "''\"\"")).lower().split()
    cores = [word.strip("\"',.") for word in straight]
    return [word.replace(core, min(core, OTHER.get(core, core))) for word, core in zip(straight, cores, strict=True)]


@settings(deadline=None, max_examples=150)
@given(WORDS, st.sets(st.integers(0, 11)), st.sampled_from([" ", "\n", "  "]))
def test_the_words_stay_what_they_were(words: list[str], places: set[int], gap: str) -> None:
    text = gap.join(words)
    inside = {p for p in places if p < len(words)}
    found = rewritten(text, inside)
    assert plain(found.text) == plain(text)
    assert len(found.kinds) == len(inside)
    assert set(found.kinds) <= {*KINDS, "none"}
    assert (found.text == text) == all(kind == "none" for kind in found.kinds)
    untouched = [w for i, w in enumerate(found.text.split()) if i not in inside]
    assert untouched == [w for i, w in enumerate(words) if i not in inside]


@pytest.mark.parametrize(
    ("text", "places", "wanted", "kinds"),
    [
        ("Colour of honor.", [0, 2], "Color of honour.", ("spelling", "spelling")),
        ("it's (\"so\") 'he said'", [0, 1, 2, 3], "it’s (“so”) ‘he said’", ("quotes", "quotes", "quotes", "quotes")),
        ("a b\nc", [0, 1, 2], "a  b\nc", ("none", "space", "none")),
        ("COLOUR x", [0], "COLOUR x", ("none",)),
        (" a b ", [1], " a  b ", ("space",)),
    ],
)
def test_by_hand(text: str, places: list[int], wanted: str, kinds: tuple[str, ...]) -> None:
    assert rewritten(text, places) == (wanted, kinds)


def test_spellings_go_both_ways() -> None:
    assert all(OTHER[other] == word for word, other in OTHER.items())
    assert len(OTHER) % 2 == 0
