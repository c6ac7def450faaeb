"""Recasing: exact dose, nesting, letters kept."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import UnknownName
from perimetry.perturb.base import share
from perimetry.perturb.case import CASE_STYLES, LetterCase

TEXT = st.text(st.one_of(st.characters(categories=("Lu", "Ll", "Lt", "Lo")), st.sampled_from(" ,.ABab1")), max_size=120)
RUN = re.compile(r"[^\W\d_]+")


@pytest.mark.parametrize("style", CASE_STYLES)
@settings(max_examples=80, deadline=None)
@given(text=TEXT, one=st.floats(0, 1), other=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_dose_is_exact_doses_nest_and_letters_stay(style: str, text: str, one: float, other: float, seed: int) -> None:
    dial = LetterCase(style)
    small = dial.apply(text, min(one, other), random.Random(seed))
    large = dial.apply(text, max(one, other), random.Random(seed))
    assert len(small) == len(large) == len(text)
    for a, b in zip(text, large, strict=True):
        assert b in (a, a.swapcase())
    words = list(zip(RUN.findall(text), RUN.findall(small), RUN.findall(large), strict=True))
    assert sum(clean != more for clean, _, more in words) == share(max(one, other), dial.eligible(text))
    assert all(less in (clean, more) for clean, less, more in words)


def test_styles_by_hand() -> None:
    text = "I like THIS, don't you"
    assert LetterCase("upper").apply(text, 1.0, random.Random(0)) == "I LIKE THIS, DON'T YOU"
    alternating = LetterCase("alternating").apply("wonder", 1.0, random.Random(0))
    assert alternating in ("wOnDeR", "WoNdEr")
    assert LetterCase("alternating").apply("a B", 1.0, random.Random(0)) == "A b"
    assert LetterCase("upper").eligible("USA 12") == 0


def test_an_unknown_style_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown case style 'uper'; the nearest name is 'upper'"):
        LetterCase("uper")
