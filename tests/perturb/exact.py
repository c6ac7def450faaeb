"""What the tests of dials over words share: exact dose and nesting, on plain sentences."""

import random

from hypothesis import strategies as st

from perimetry.perturb import AbstractPerturbation
from perimetry.perturb.base import share

COMMON = (
    "the two men could see their sons here by sea and all of them Knew WHICH week it was for our new House clay modern"
)
SENTENCES = st.lists(st.sampled_from([*COMMON.split(), "zyx", "12", "Öl"]), max_size=40).map(" ".join)


def check_dose(dial: AbstractPerturbation, text: str, one: float, other: float, seed: int) -> None:
    """Exactly the dose of the words changes, and those of the smaller dose change alike at the larger."""
    words = text.split()
    small = dial.apply(text, min(one, other), random.Random(seed)).split()
    large = dial.apply(text, max(one, other), random.Random(seed)).split()
    assert sum(a != b for a, b in zip(words, small, strict=True)) == share(min(one, other), dial.eligible(text))
    assert sum(a != b for a, b in zip(words, large, strict=True)) == share(max(one, other), dial.eligible(text))
    assert all(less in (clean, more) for clean, less, more in zip(words, small, large, strict=True))
