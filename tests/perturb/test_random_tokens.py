"""Random words and letters: exact dose, matched lengths, words as often as in the vocabulary."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import UnknownName
from perimetry.perturb.random_tokens import RandomTokens
from perturb.exact import COMMON, SENTENCES, check_dose

POOL = tuple(COMMON.split())


@pytest.mark.parametrize("dial", [RandomTokens("words", POOL), RandomTokens("words"), RandomTokens("letters")])
@settings(max_examples=60, deadline=None)
@given(text=SENTENCES, one=st.floats(0, 1), other=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_dose_is_exact_and_doses_nest(dial: RandomTokens, text: str, one: float, other: float, seed: int) -> None:
    check_dose(dial, text, one, other, seed)


def test_words_are_of_the_vocabulary_and_of_the_nearest_length() -> None:
    dial = RandomTokens("words", ("one", "two", "seven", "house"))
    made = {dial.apply("Ten", 1.0, random.Random(seed)) for seed in range(60)}
    assert made == {"One", "Two"}
    assert {dial.apply("house", 1.0, random.Random(seed)) for seed in range(60)} == {"seven"}
    assert dial.apply("CONSTITUTION", 1.0, random.Random(0)) in {"SEVEN", "HOUSE"}
    lone = RandomTokens("words", ("lone",))
    assert (lone.eligible("lone Lone"), lone.eligible("other")) == (0, 1)


def test_words_come_as_often_as_they_stand_in_the_vocabulary() -> None:
    dial = RandomTokens("words", ("one",) * 3 + ("two",))
    made = [dial.apply("ten", 1.0, random.Random(seed)) for seed in range(2000)]
    assert abs(made.count("one") - 1500) < 5 * (2000 * 0.75 * 0.25) ** 0.5


def test_letters_keep_the_length_and_the_capitals() -> None:
    for seed in range(30):
        out = RandomTokens("letters").apply("Old maps, USA.", 1.0, random.Random(seed))
        assert [len(word) for word in out.split()] == [3, 5, 4]
        assert (out[:3].istitle(), out[4:8].islower(), out[8:10], out[10:13].isupper()) == (True, True, ", ", True)


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown kind of random token 'word'; the nearest name is 'words'"):
        RandomTokens("word")
