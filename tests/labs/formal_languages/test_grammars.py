"""Strings of each language, against the grammar applied by hand."""

import random
from statistics import fmean, median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perimetry.labs.formal_languages.grammars import (
    FIRST,
    LANGUAGES,
    PARTS,
    AbstractLanguage,
    Dyck,
    English,
    Expressions,
)

EVERY = pytest.mark.parametrize("language", LANGUAGES.values(), ids=list(LANGUAGES))


@EVERY
def test_what_is_drawn_is_valid_and_fits(language: AbstractLanguage) -> None:
    source = random.Random(0)
    found = [language.draw(source, 38) for _ in range(500)]
    assert all(language.valid(one) and len(one) <= 38 for one in found)
    assert all(FIRST <= token < language.vocab for one in found for token in one)
    assert not language.valid([])
    for one in found[:50]:
        truth = language.truth(one)
        assert len(truth) == len(one)
        assert all(len(row) == len(language.variables) for row in truth)


@pytest.mark.parametrize(
    ("name", "mean", "middle"), [("dyck", 28, 4), ("dyck_3", 7.4, None), ("expr", 5.1, 1), ("english", 7.6, None)]
)
def test_lengths_are_those_of_the_study(name: str, mean: float, middle: int | None) -> None:
    source = random.Random(1)
    lengths = [len(LANGUAGES[name].draw(source, 2000)) for _ in range(6000)]
    # The lengths of the first have a heavy tail.
    assert fmean(lengths) == pytest.approx(mean, rel=0.25 if name == "dyck" else 0.08)
    assert middle is None or median(lengths) == middle


@EVERY
@given(seed=st.integers(0, 2**20))
def test_a_token_lost_or_moved_is_seen_where_it_matters(language: AbstractLanguage, seed: int) -> None:
    source = random.Random(seed)
    one = language.draw(source, 38)
    if isinstance(language, Dyck | Expressions):
        assert not language.valid(one[:-1])
        assert not language.valid([*one, one[-1]])
    assert not language.valid([*one, FIRST + language.words])


def test_brackets_by_hand() -> None:
    dyck = Dyck()
    a, b, a_, b_ = FIRST, FIRST + 1, FIRST + 2, FIRST + 3
    assert dyck.valid([a, b, b_, a_, a, a_])
    assert not dyck.valid([a, b, a_, b_])
    assert not dyck.valid([a_, a])
    assert dyck.truth([a, b, b_, a_]) == [(1.0, 0.0), (2.0, 1.0), (1.0, 0.0), (0.0, -1.0)]
    deep = dyck.deep(random.Random(0))
    assert dyck.truth(deep)[-1][0] == 6


def test_expressions_by_hand() -> None:
    expr = Expressions()
    digit, one, two, three = FIRST, FIRST + 10, FIRST + 13, FIRST + 16
    assert expr.valid([digit])
    assert expr.valid([two, one, digit, three, digit, digit, digit])
    assert not expr.valid([two, digit])
    assert not expr.valid([digit, digit])
    assert expr.truth([two, digit, digit]) == [(2.0, 2.0), (1.0, 0.0), (0.0, 0.0)]
    assert [pair[0] for pair in expr.truth(expr.deep(random.Random(0)))] == [3.0, 5.0, 7.0]


def test_english_by_hand() -> None:
    english = English()

    def words(*parts: str) -> list[int]:
        return [FIRST + 10 * PARTS.index(part) + 3 for part in parts]

    right = (
        ("pronoun", "verb"),
        ("adjective", "noun", "conjunction", "pronoun", "verb", "adjective", "noun", "adverb"),
        ("pronoun", "verb", "pronoun", "conjunction", "pronoun", "conjunction", "verb"),
        ("pronoun", "verb", "adverb", "adverb", "conjunction", "verb", "pronoun"),
    )
    wrong = (
        ("pronoun",),
        ("adjective", "verb"),
        ("pronoun", "verb", "adverb", "conjunction", "pronoun"),
        ("pronoun", "verb", "conjunction"),
        ("verb", "pronoun"),
        ("pronoun", "verb", "verb"),
    )
    assert all(english.valid(words(*one)) for one in right)
    assert not any(english.valid(words(*one)) for one in wrong)
    truth = english.truth(words(*right[2]))
    assert [row[:2] for row in truth] == [(0, 0), (1, 0), (1, 0), (1, 1), (1, 1), (1, 1), (1, 1)]
    assert truth[1][2 + PARTS.index("verb")] == 1
