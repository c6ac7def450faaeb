"""Gibberish at the end: exact share, the rest untouched."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.perturb.base import share
from perimetry.perturb.suffix import SUFFIX_PIECES, GibberishSuffix
from perturb.exact import SENTENCES, check_dose


@settings(max_examples=80, deadline=None)
@given(text=SENTENCES, one=st.floats(0, 1), other=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_dose_is_exact_and_doses_nest(text: str, one: float, other: float, seed: int) -> None:
    check_dose(GibberishSuffix(), text, one, other, seed)


@settings(max_examples=60, deadline=None)
@given(text=SENTENCES, dose=st.floats(0, 1), seed=st.integers(0, 99))
def test_only_the_last_words_change_and_all_are_made_of_pieces(text: str, dose: float, seed: int) -> None:
    words = text.split()
    count = share(dose, len(words))
    out = GibberishSuffix().apply(text, dose, random.Random(seed)).split()
    assert out[: len(words) - count] == words[: len(words) - count]
    assert all(made_of_pieces(word) for word in out[len(words) - count :])


def made_of_pieces(word: str) -> bool:
    """Whether it can be cut into pieces."""
    reached = {0}
    for end in range(1, len(word) + 1):
        if any(
            word.startswith(piece, start) and start + len(piece) == end for piece in SUFFIX_PIECES for start in reached
        ):
            reached.add(end)
    return len(word) in reached
