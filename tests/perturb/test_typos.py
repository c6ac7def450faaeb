"""Typing errors: exact dose, nesting, only letters touched, each kind does what its name says."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import UnknownName, UsageError
from perimetry.perturb.base import share
from perimetry.perturb.typos import NEIGHBOURS, TYPO_KINDS, Typos

LETTERS = st.characters(categories=("Lu", "Ll", "Lo", "Lt"))
TEXT = st.text(st.one_of(LETTERS, st.sampled_from(" ,.\n-'7ABCabcxyz")), max_size=160)
RUN = re.compile(r"[^\W\d_]+")


def runs(text: str) -> list[str]:
    return RUN.findall(text)


@settings(max_examples=200, deadline=None)
@given(text=TEXT, dose=st.floats(0, 1), seed=st.integers(0, 10**6), kinds=st.sets(st.sampled_from(sorted(TYPO_KINDS))))
def test_exactly_the_dose_of_the_words_changes_and_nothing_else(
    text: str, dose: float, seed: int, kinds: set[str]
) -> None:
    dial = Typos(tuple(sorted(kinds))) if kinds else Typos()
    out = dial.apply(text, dose, random.Random(seed))
    before, after = runs(text), runs(out)
    assert len(before) == len(after)
    changed = [a for a, b in zip(before, after, strict=True) if a != b]
    assert len(changed) == share(dose, dial.eligible(text))
    assert all(len(word) >= 3 for word in changed)
    assert RUN.split(text) == RUN.split(out), "only runs of letters may change"


@settings(max_examples=100, deadline=None)
@given(text=TEXT, one=st.floats(0, 1), other=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_doses_nest(text: str, one: float, other: float, seed: int) -> None:
    before = runs(text)
    small = runs(Typos().apply(text, min(one, other), random.Random(seed)))
    large = runs(Typos().apply(text, max(one, other), random.Random(seed)))
    for clean, less, more in zip(before, small, large, strict=True):
        assert less in (clean, more)


def one_edit(kind: str, word: str) -> set[str]:
    """Every outcome of one edit of an ASCII lower-case word, by definition."""
    swaps = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)} - {word}
    keys = {word[:i] + key + word[i + 1 :] for i, c in enumerate(word) for key in NEIGHBOURS[c]}
    gone = {word[:i] + word[i + 1 :] for i in range(len(word))}
    more = {
        word[:place] + key + word[place:]
        for i, c in enumerate(word)
        for place in (i, i + 1)
        if place
        for key in c + NEIGHBOURS[c]
    }
    return {"transposition": swaps, "keyboard": keys, "deletion": gone, "insertion": more}[kind]


@pytest.mark.parametrize("kind", sorted(TYPO_KINDS))
@settings(max_examples=60, deadline=None)
@given(word=st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), min_size=3, max_size=8))
def test_each_kind_makes_its_own_single_edit_and_can_reach_all_of_them(kind: str, word: str) -> None:
    dial = Typos((kind,))
    reached = {dial.apply(word, 1.0, random.Random(seed)) for seed in range(30)}
    if not dial.eligible(word):
        assert reached == {word}
        assert len(set(word)) == 1
    else:
        assert reached <= one_edit(kind, word)
        assert len(reached) > 1 or len(one_edit(kind, word)) <= 2


def test_the_keyboard_is_the_one_under_the_fingers() -> None:
    assert set(NEIGHBOURS["g"]) == set("fhtyvb")
    assert set(NEIGHBOURS["q"]) == set("wa")
    assert set(NEIGHBOURS["p"]) == set("ol")
    assert all(a in NEIGHBOURS[b] for a in NEIGHBOURS for b in NEIGHBOURS[a])


def test_all_kinds_are_drawn_about_evenly() -> None:
    lengths = [len(Typos().apply("wonder", 1.0, random.Random(seed))) for seed in range(2000)]
    assert abs(lengths.count(5) - 500) < 100
    assert abs(lengths.count(7) - 500) < 100
    assert abs(lengths.count(6) - 1000) < 115


def test_the_capital_stays_at_the_start() -> None:
    assert Typos(("transposition",)).apply("Wow", 1.0, random.Random(1)) in ("Oww", "Wwo")


def test_golden() -> None:
    text = "The quick brown fox, jumping over 12 lazy dogs; doesn't it?"
    assert Typos().apply(text, 0.5, random.Random(11)) == (
        "The quick bown fopx, jumping ver 12 lazy dogds; dcoesn't it?"
    )
    assert Typos().apply("a 12 of it", 1.0, random.Random(1)) == "a 12 of it"


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="the nearest name is 'deletion'"):
        Typos(("deletions",))
    with pytest.raises(UsageError, match="no kind of typo was chosen"):
        Typos(())
