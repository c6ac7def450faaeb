"""What cannot be seen is shown, and nothing is lost."""

from hypothesis import given
from hypothesis import strategies as st

from perimetry.monitor.web.escapes import pieces, plain


@given(st.text())
def test_pieces_are_the_text_and_plain_ones_can_be_seen(text: str) -> None:
    found = pieces(text)
    assert "".join(piece if isinstance(piece, str) else piece[0] for piece in found) == text
    assert all(piece.isprintable() and piece for piece in found if isinstance(piece, str))
    assert all(piece[1].isprintable() for piece in found if not isinstance(piece, str))
    assert plain(text).isprintable()


def test_what_turns_the_line_around_is_shown() -> None:
    hidden = (
        "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u00ad\u200b\u200c\u200d\u2060\ufeff"
    )
    assert [piece[1] for piece in pieces(hidden)] == [f"U+{ord(char):04X}" for char in hidden]
    assert plain("\x00\x1b\x85\xa0\u2028\ue000\U000e0041") == "U+0000U+001BU+0085U+00A0U+2028U+E000U+E0041"
    assert plain("naïve 東京 🙂 नमस्ते") == "naïve 東京 🙂 नमस्ते"
