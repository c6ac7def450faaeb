"""Text as people can see it: characters that hide, or that turn the line around, are shown as what they are."""

from typing import Final

__all__ = ["Piece", "Pieces", "pieces", "plain"]

Piece = str | tuple[str, str]
"""Plain text; or a character that cannot be seen, and what is shown in its place."""

Pieces = list[Piece]
"""A text, cut where something cannot be seen. What stands first in each piece, put together, is the text again."""

_MARKS: Final = {"\n": "⏎", "\t": "⇥"}


def _mark(char: str) -> str:
    return _MARKS.get(char) or f"U+{ord(char):04X}"


def pieces(text: str) -> Pieces:
    r"""A text with control, format, private and unassigned characters and all spaces but the plain one marked.

    >>> pieces("pay\u202eroll\n")
    ['pay', ('\u202e', 'U+202E'), 'roll', ('\n', '⏎')]
    """
    if text.isprintable():
        return [text] if text else []
    found: Pieces = []
    held = 0
    for at, char in enumerate(text):
        if not char.isprintable():
            if at > held:
                found.append(text[held:at])
            found.append((char, _mark(char)))
            held = at + 1
    if held < len(text):
        found.append(text[held:])
    return found


def plain(text: str) -> str:
    r"""The same as one string, for where nothing but text can stand.

    >>> plain("pay\u202eroll")
    'payU+202Eroll'
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _mark(char) for char in text)
