"""Code-switching: exact dose, every change a translation."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import UnknownName
from perimetry.perturb.code_switch import CodeSwitch
from perimetry.perturb.dictionary import LANGUAGES
from perturb.exact import SENTENCES, check_dose


@pytest.mark.parametrize("language", LANGUAGES)
@settings(max_examples=60, deadline=None)
@given(text=SENTENCES, one=st.floats(0, 1), other=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_dose_is_exact_and_doses_nest(language: str, text: str, one: float, other: float, seed: int) -> None:
    check_dose(CodeSwitch(language), text, one, other, seed)


def test_by_hand() -> None:
    text = "The WATER is cold, zebra."
    assert CodeSwitch("spanish").apply(text, 1.0, random.Random(0)) == "El AGUA es cold, zebra."
    assert CodeSwitch("german").apply(text, 1.0, random.Random(0)) == "Der WASSER ist cold, zebra."
    assert CodeSwitch("french").apply("today", 1.0, random.Random(0)) == "aujourd'hui"
    assert CodeSwitch("spanish").eligible("animal") == 0, "the same word in both languages"


def test_an_unknown_language_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown language 'germn'; the nearest name is 'german'"):
        CodeSwitch("germn")
