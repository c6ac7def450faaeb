"""HTML from Python values, with every text escaped: what is not `Html` already cannot become mark-up."""

import html
import re
from collections.abc import Iterable

__all__ = ["Html", "Node", "join", "number", "tag"]

VOID = frozenset({"br", "circle", "hr", "line", "meta", "path", "polygon", "polyline", "rect"})
NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9:-]*")


class Html(str):
    """Mark-up that may stand in the page as it is; made by `tag` and `join`, and from constants of this package."""

    __slots__ = ()


Node = str | int | float | Html | None
"""What can stand in a tag: mark-up as it is, anything else escaped, None as nothing."""


def _child(node: Node) -> str:
    if node is None:
        return ""
    return node if isinstance(node, Html) else html.escape(_printable(str(node)))


def _printable(text: str) -> str:
    """Without the control characters that HTML forbids; they are shown as the replacement character."""
    return "".join(
        c if c in "\n\t" or (ord(c) >= 32 and not 127 <= ord(c) < 160 and not _lone(c)) else "�" for c in text
    )


def _lone(letter: str) -> bool:
    return "\ud800" <= letter <= "\udfff" or letter in "￾￿"


def tag(tag_name: str, *children: Node, **attributes: Node) -> Html:
    """An element. A trailing underscore of an attribute is dropped, other underscores become hyphens.

    >>> tag("p", "a < b", tag("b", "!"), class_="note")
    '<p class="note">a &lt; b<b>!</b></p>'
    """
    pieces: list[str] = []
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an attribute")
        if value is not None:
            pieces.append(f' {name}="{html.escape(_printable(str(value)))}"')
    opening = f"<{tag_name}{''.join(pieces)}>"
    if tag_name in VOID:
        return Html(opening if tag_name in ("br", "hr", "meta") else opening[:-1] + "/>")
    return Html(opening + "".join(map(_child, children)) + f"</{tag_name}>")


def join(nodes: Iterable[Node], between: str = "") -> Html:
    """Nodes one after the other."""
    return Html(html.escape(between).join(map(_child, nodes)))


def number(value: float, digits: int = 3) -> str:
    """A number as the report prints it; a share below 1 without its leading zero, a minus as a true minus.

    >>> number(0.95), number(-0.0123), number(1.0), number(0.0001)
    ('.950', '−.012', '1.000', '.000')
    """
    text = f"{abs(value):.{digits}f}"
    text = text[1:] if text.startswith("0.") else text
    return ("−" if value < 0 and float(f"{value:.{digits}f}") != 0 else "") + text
