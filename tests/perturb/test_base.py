"""Shares, nesting, and the cut into words."""

import random

from hypothesis import given
from hypothesis import strategies as st

from perimetry.perturb.base import chosen, share, split_words


@given(st.floats(0, 1), st.integers(0, 500))
def test_share_is_within_half_a_unit_of_the_dose(dose: float, eligible: int) -> None:
    count = share(dose, eligible)
    assert 0 <= count <= eligible
    assert abs(count - dose * eligible) <= 0.5 + 1e-9 or (count == 1 and dose > 0)
    assert (count > 0) == (dose > 0 and eligible > 0)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 200), st.integers())
def test_units_of_a_small_dose_are_among_those_of_a_larger_one_and_change_alike(
    one: float, other: float, eligible: int, seed: int
) -> None:
    small = chosen(min(one, other), eligible, random.Random(seed))
    large = chosen(max(one, other), eligible, random.Random(seed))
    assert set(small) <= set(large)
    assert all(small[unit].getstate() == large[unit].getstate() for unit in small)


def test_units_are_chosen_evenly() -> None:
    counts = [0] * 10
    for seed in range(4000):
        for unit in chosen(0.3, 10, random.Random(seed)):
            counts[unit] += 1
    assert max(abs(count - 1200) for count in counts) < 5 * (4000 * 0.3 * 0.7) ** 0.5


@given(st.text())
def test_words_and_gaps_put_together_again_are_the_text(text: str) -> None:
    words, gaps = split_words(text)
    assert words == text.split()
    assert len(gaps) == len(words) + 1
    assert "".join(gap + word for gap, word in zip(gaps, words, strict=False)) + gaps[-1] == text
