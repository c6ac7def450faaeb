"""Word order: exact dose, nesting, words kept, windows respected."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import UsageError
from perimetry.perturb.base import share
from perimetry.perturb.word_order import WordOrder

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "dd", "ee,", "f.", "g;", "h1", "I"]), max_size=50)


@settings(max_examples=120, deadline=None)
@given(words=TEXTS, window=st.sampled_from([0, 2, 5]), dose=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_no_word_is_lost_and_none_leaves_its_window(words: list[str], window: int, dose: float, seed: int) -> None:
    dial = WordOrder(window)
    mixed = dial.apply(" ".join(words), dose, random.Random(seed)).split()
    assert sorted(mixed) == sorted(words)
    if window:
        starts = range(0, len(words), window)
        assert all(sorted(words[s : s + window]) == sorted(mixed[s : s + window]) for s in starts)
        touched = sum(words[s : s + window] != mixed[s : s + window] for s in starts)
        assert touched == share(dose, dial.eligible(" ".join(words)))


@settings(max_examples=120, deadline=None)
@given(n=st.integers(2, 60), dose=st.floats(0.001, 1), seed=st.integers(0, 10**6))
def test_across_the_whole_text_exactly_the_dose_of_distinct_words_moves(n: int, dose: float, seed: int) -> None:
    words = [f"w{i}" for i in range(n)]
    mixed = WordOrder(0).apply(" ".join(words), dose, random.Random(seed)).split()
    assert sum(a != b for a, b in zip(words, mixed, strict=True)) == max(2, share(dose, n))


@settings(max_examples=120, deadline=None)
@given(
    n=st.integers(2, 60),
    window=st.sampled_from([0, 2, 5]),
    one=st.floats(0, 1),
    other=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
def test_doses_nest(n: int, window: int, one: float, other: float, seed: int) -> None:
    words = [f"w{i}" for i in range(n)]
    text = " ".join(words)
    moved = [
        {i for i, w in enumerate(WordOrder(window).apply(text, dose, random.Random(seed)).split()) if w != words[i]}
        for dose in sorted((one, other))
    ]
    assert moved[0] <= moved[1]


def test_repeated_words_still_change_the_text() -> None:
    text = "a a a a a a a b"
    assert all(WordOrder(0).apply(text, 0.1, random.Random(seed)) != text for seed in range(50))
    assert WordOrder(2).eligible(text) == 1


@pytest.mark.parametrize("window", [1, -2])
def test_a_window_that_mixes_nothing_is_refused(window: int) -> None:
    with pytest.raises(UsageError, match=f"window {window} mixes nothing; wanted 2 or more"):
        WordOrder(window)
