"""What holds for every perturbation in the table."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import UsageError
from perimetry.perturb import (
    PERTURBATIONS,
    AbstractPerturbation,
    CodeSwitch,
    LetterCase,
    RandomTokens,
    Typos,
    WordOrder,
)

LETTERS = st.text(st.characters(categories=("Lu", "Ll", "Lo", "Nd", "Po", "Mn", "Lt")), min_size=1, max_size=9)
ENGLISH = "the The to two SEA, see their they're house's one won I a A of off and modern clay illumine 1st x"
WORDS = st.one_of(LETTERS, st.sampled_from(ENGLISH.split()))
PROSE = st.lists(st.tuples(st.sampled_from(["", " ", "\n", "  ", "\t"]), WORDS), max_size=40).map(
    lambda parts: "".join(gap + word for gap, word in parts)
)
DOSES = st.floats(0.0, 1.0)
VARIANTS: list[AbstractPerturbation] = [
    *(cls.tiny() for cls in PERTURBATIONS.values()),
    *(Typos((kind,)) for kind in ("keyboard", "transposition", "deletion", "insertion")),
    *(LetterCase(style) for style in ("upper", "alternating")),
    *(CodeSwitch(language) for language in ("french", "german")),
    RandomTokens("letters"),
    RandomTokens("words", ("The", "sea", "house", "house", "Ł", "ß")),
    WordOrder(0),
    WordOrder(5),
]
IDS = [repr(variant) for variant in VARIANTS]


@pytest.mark.parametrize("dial", VARIANTS, ids=IDS)
@settings(max_examples=40, deadline=None)
@given(text=PROSE, seed=st.integers(0, 99))
def test_dose_zero_gives_the_text_back(dial: AbstractPerturbation, text: str, seed: int) -> None:
    assert dial.apply(text, 0.0, random.Random(seed)) == text


@pytest.mark.parametrize("dial", VARIANTS, ids=IDS)
@settings(max_examples=60, deadline=None)
@given(text=PROSE, dose=DOSES, seed=st.integers(0, 99))
def test_the_same_seed_gives_the_same_text_and_words_stay(
    dial: AbstractPerturbation, text: str, dose: float, seed: int
) -> None:
    once = dial.apply(text, dose, random.Random(seed))
    assert once == dial.apply(text, dose, random.Random(seed))
    assert len(once.split()) == len(text.split())
    assert [c for c in once if c.isspace()] == [c for c in text if c.isspace()]


@pytest.mark.parametrize("dial", VARIANTS, ids=IDS)
@settings(max_examples=60, deadline=None)
@given(text=PROSE, dose=st.floats(1e-6, 1.0), seed=st.integers(0, 99))
def test_a_positive_dose_changes_every_text_that_can_be_changed(
    dial: AbstractPerturbation, text: str, dose: float, seed: int
) -> None:
    changed = dial.apply(text, dose, random.Random(seed)) != text
    assert changed == (dial.eligible(text) > 0)


@pytest.mark.parametrize("dial", VARIANTS, ids=IDS)
def test_seeds_differ(dial: AbstractPerturbation) -> None:
    text = " ".join(f"{a}nd{b}er" for a in "abcdefgh" for b in "uvwxyz")
    text += " the two men could see their sons here by the sea and all of them knew which week it was for our new house"
    outcomes = {dial.apply(text, 0.3, random.Random(seed)) for seed in range(20)}
    assert len(outcomes) == 20


@pytest.mark.parametrize("dose", [-0.1, 1.01, float("nan")])
@pytest.mark.parametrize("dial", VARIANTS, ids=IDS)
def test_a_dose_that_is_no_share_is_refused(dial: AbstractPerturbation, dose: float) -> None:
    with pytest.raises(UsageError, match="is no share; wanted a number from 0"):
        dial.apply("some words to change here", dose, random.Random(0))


def test_the_table_lists_each_under_its_own_name() -> None:
    assert {name: cls.name for name, cls in PERTURBATIONS.items()} == {name: name for name in PERTURBATIONS}
