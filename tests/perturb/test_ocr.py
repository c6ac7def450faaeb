"""Misread letters: exact dose, each change an entry of the table."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.perturb.ocr import OCR_CONFUSIONS, Ocr
from perturb.exact import SENTENCES, check_dose


@settings(max_examples=80, deadline=None)
@given(text=SENTENCES, one=st.floats(0, 1), other=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_dose_is_exact_and_doses_nest(text: str, one: float, other: float, seed: int) -> None:
    check_dose(Ocr(), text, one, other, seed)


@settings(max_examples=100, deadline=None)
@given(
    word=st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyzBMOSTIxX"), min_size=2, max_size=8), seed=st.integers(0, 99)
)
def test_every_change_is_one_entry_of_the_table(word: str, seed: int) -> None:
    reachable = {
        word[:i] + taken + word[i + len(seen) :]
        for seen, others in OCR_CONFUSIONS.items()
        for i in range(len(word))
        if word.startswith(seen, i)
        for taken in others
    }
    out = Ocr().apply(word, 1.0, random.Random(seed))
    assert out in reachable if reachable else out == word
    assert bool(reachable) == bool(Ocr().eligible(word))


def test_no_confusion_changes_nothing_or_adds_a_space() -> None:
    assert all(taken != seen and " " not in taken for seen, others in OCR_CONFUSIONS.items() for taken in others)
    assert {Ocr().apply("rn", 1.0, random.Random(seed)) for seed in range(40)} == {"m", "rri", "ru"}
    assert Ocr().eligible("a 12 xx") == 0
