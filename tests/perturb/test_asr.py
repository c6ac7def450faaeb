"""Mishearings: exact dose, only known words, symmetric table."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.perturb.asr import SOUND_ALIKES, Asr
from perturb.exact import SENTENCES, check_dose


@settings(max_examples=80, deadline=None)
@given(text=SENTENCES, one=st.floats(0, 1), other=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_dose_is_exact_and_doses_nest(text: str, one: float, other: float, seed: int) -> None:
    check_dose(Asr(), text, one, other, seed)


def test_the_table_is_symmetric_and_maps_no_word_to_itself() -> None:
    for word, others in SOUND_ALIKES.items():
        assert others
        for other in others:
            assert other.lower() != word
            assert word in {back.lower() for back in SOUND_ALIKES[other.lower()]}
    assert len(SOUND_ALIKES) > 400


def test_each_word_can_become_each_of_its_sound_alikes_and_keeps_its_capital() -> None:
    heard = {Asr().apply("Their", 1.0, random.Random(seed)) for seed in range(60)}
    assert heard == {"There", "They're"}
    assert Asr().apply("KNIGHT", 1.0, random.Random(0)) == "NIGHT"
    assert Asr().apply("(they’re)", 1.0, random.Random(0)) in {"(their)", "(there)"}, "the typographic apostrophe too"
    assert Asr().eligible("zebra 12 don't") == 0
