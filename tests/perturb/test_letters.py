"""Case, one letter for one."""

from hypothesis import given
from hypothesis import strategies as st

from perimetry.perturb.letters import flip, like, lower, upper


@given(st.text(max_size=20))
def test_lengths_stay_and_letters_stay_letters(text: str) -> None:
    for out in (upper(text), lower(text), like(text, "Abc"), like(text, "ABC")):
        assert len(out) == len(text)
        assert all(b in (a, a.swapcase()) for a, b in zip(text, out, strict=True))


@given(st.characters())
def test_a_flip_can_be_undone(letter: str) -> None:
    assert flip(flip(letter)) == letter


def test_by_hand() -> None:
    assert [like("mouse", model) for model in ("Cat", "CAT", "cat", "C", "", "12")] == [
        "Mouse",
        "MOUSE",
        "mouse",
        "Mouse",
        "mouse",
        "mouse",
    ]
    assert (upper("ß"), lower("İ"), like("", "Cat")) == ("ß", "İ", "")
