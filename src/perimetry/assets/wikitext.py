"""Plain text out of MediaWiki mark-up of the year 2006.

What cannot be read as prose is left out rather than guessed: tables, templates, formulae, galleries, headings,
sections that list books and links, and every line that still holds mark-up at the end (unbalanced brackets, cells of broken tables).
"""

import html
import re

__all__ = ["LETTER_SHARE", "SHORTEST_ARTICLE", "SHORTEST_LINE", "clean", "is_redirect"]

SHORTEST_LINE = 40
SHORTEST_ARTICLE = 300
LETTER_SHARE = 0.75

HOLE = "\x00"
"""Stands where something was that the sentence needs (a formula); its line is left out."""

REDIRECT = re.compile(r"\s*#\s*redirect", re.IGNORECASE)
COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
REFERENCE = re.compile(r"<ref\b[^<>]*/>|<ref\b[^<>]*>.*?</ref\s*>", re.DOTALL | re.IGNORECASE)
BLOCKS = re.compile(
    r"<(gallery|timeline|imagemap|hiero|pre|source|code|tt|table|score|poem)\b[^<>]*>.*?(?:</\1\s*>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
FORMULA = re.compile(r"<math\b[^<>]*>.*?(?:</math\s*>|\Z)", re.DOTALL | re.IGNORECASE)
BREAK = re.compile(r"<\s*(?:br|p|/p|li|/li|hr|div|/div|blockquote|/blockquote|center|/center)\b[^<>]*>", re.IGNORECASE)
TAG = re.compile(r"</?[A-Za-z][^<>]*>")
INNER_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
INNER_LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
OUTER_LINK = re.compile(r"\[(?:https?|ftp|news|irc|mailto)://?[^\s\]]*(?:\s+([^\[\]]*))?\]", re.IGNORECASE)
ADDRESS = re.compile(r"(?:https?|ftp)://\S+", re.IGNORECASE)
DROPPED_LINK = re.compile(r"\s*(?:image|file|media|category)\s*:", re.IGNORECASE)
LANGUAGE_LINK = re.compile(r"(?:[a-z]{2,3}|simple|zh-[a-z-]+|be-x-old|roa-[a-z]+|map-bms|fiu-vro|nds-nl)\s*:")
QUOTES = re.compile(r"'{2,}")
BULLET = re.compile(r"^[-*#:;•\s]+")
NOTE_MARK = re.compile(r"\s?\[\d{0,3}\]")
HEADING = re.compile(r"={1,6}\s*([^=]+?)\s*={1,6}\s*$")
LISTS = re.compile(
    r"(?:see also|references?|(?:external|further) (?:links?|reading|references)|bibliography|notes?|sources?|links?"
    r"|footnotes|related (?:topics|articles|pages)|publications|discography|filmography|citations|works cited)\b",
    re.IGNORECASE,
)
MAGIC = re.compile(r"__[A-Z]+__|~{3,}")
EMPTY_BRACKETS = re.compile(r"\(\s*[,;:.\s]*\)")
OPENED_BADLY = re.compile(r"\(\s*[,;:]*\s+")
BEFORE_STOP = re.compile(r"\s+([,.;:!?)](?:\s|$))")
SPACES = re.compile(r"[ \t\u00a0\u200b\u200e\u200f\ufeff]+")
LEFT_OVER = re.compile(
    r"\x00|,\s*,|\(\s*[,;]|[,;]\s*\)|\[\[|\]\]|\{\{|\}\}|\{\||\|\}|\||&[a-zA-Z]{2,8};|&#\w+;|</|/>|^=|=\s*\"|={2,}"
)
CONTROL = re.compile(r"[\x01-\x08\x0b-\x1f\x7f]")
DEEPEST = 30


def is_redirect(markup: str) -> bool:
    """True for a page that only points to another.

    >>> is_redirect("#REDIRECT [[Anarchism]]")
    True
    """
    return REDIRECT.match(markup) is not None


def _until_stable(pattern: re.Pattern[str], replace: str, text: str) -> str:
    """Innermost matches first, outwards; `DEEPEST` levels are more than any page has."""
    for _ in range(DEEPEST):
        text, count = pattern.subn(replace, text)
        if not count:
            break
    return text


def _without_tables(text: str) -> str:
    """Leave out `{| ... |}`, nested ones included; of a table that never ends, the lines that look like its cells."""
    if "{|" not in text:
        return text
    kept: list[str] = []
    held: list[str] = []
    depth = 0
    for line in text.split("\n"):
        start = line.lstrip(" :*\t")
        if start.startswith("{|"):
            depth += 1
        if depth == 0:
            kept.append(line)
            continue
        held.append(line)
        if start.startswith("|}"):
            depth -= 1
            if depth == 0:
                held.clear()
                kept.append(start[2:])
    return "\n".join(kept + [line for line in held if not line.lstrip(" :*\t").startswith(("{|", "|", "!"))])


def _link(match: re.Match[str]) -> str:
    """The words that a reader sees of one innermost `[[...]]`."""
    inside = match[1]
    if DROPPED_LINK.match(inside):
        return ""
    target, bar, label = inside.partition("|")
    if bar:
        words = label.rpartition("|")[2].strip()
        return words or re.sub(r"\s*\([^()]*\)$|,.*$", "", target.rpartition(":")[2])  # the pipe trick hides "(...)"
    if LANGUAGE_LINK.match(inside):
        return ""
    return inside.lstrip(":").replace("_", " ")


def _links(text: str) -> str:
    text = OUTER_LINK.sub(lambda m: m[1] or "", text)
    for _ in range(DEEPEST):
        text, count = INNER_LINK.subn(_link, text)
        if not count:
            break
    return text


def _prose(line: str) -> str:
    """A line tidied, or "" when it is no prose."""
    if line.startswith(("=", "|", "!", "{|")):
        return ""
    line = BULLET.sub("", line)
    line = NOTE_MARK.sub("", ADDRESS.sub(HOLE, line))
    line = SPACES.sub(" ", EMPTY_BRACKETS.sub("", line))
    line = BEFORE_STOP.sub(r"\1", OPENED_BADLY.sub("(", line)).strip()
    if len(line) < SHORTEST_LINE or LEFT_OVER.search(line):
        return ""
    return line if sum(map(str.isalpha, line)) >= LETTER_SHARE * len(line) else ""


def _paragraphs(text: str) -> list[str]:
    """Join what MediaWiki shows as one paragraph: lines with no empty line, list mark or heading between them."""
    found: list[str] = []
    joins = False
    for line in map(str.strip, text.split("\n")):
        plain = bool(line) and line[0] not in "*#:;=|!{-"
        if plain and joins:
            found[-1] += " " + line
        elif line:
            found.append(line)
        joins = plain
    return found


def _without_lists(lines: list[str]) -> list[str]:
    """Lines without headings and without the sections that list books, notes and links."""
    kept: list[str] = []
    listing = False
    for line in lines:
        heading = HEADING.match(line)
        if heading:
            listing = LISTS.match(heading[1]) is not None
        elif not listing:
            kept.append(line)
    return kept


def clean(markup: str) -> str:
    """The prose of an article, one paragraph a line; "" when less than `SHORTEST_ARTICLE` characters remain.

    A line stays when it has at least `SHORTEST_LINE` characters, `LETTER_SHARE` of them letters, and no mark-up left.

    >>> clean("'''Anarchism''' is a [[political philosophy|philosophy]]." * 12)[:29]
    'Anarchism is a philosophy.Ana'
    """
    text = COMMENT.sub("", CONTROL.sub("", markup).replace(HOLE, ""))
    text = FORMULA.sub(HOLE, BLOCKS.sub("\n\n", REFERENCE.sub("", text)))
    text = re.sub(r"</?nowiki\s*/?>", "", text, flags=re.IGNORECASE)
    text = _without_tables(_until_stable(INNER_TEMPLATE, "", text))
    text = _links(text)
    text = TAG.sub("", BREAK.sub("\n\n", text))
    text = html.unescape(html.unescape(text))
    text = MAGIC.sub("", QUOTES.sub("", text))
    lines = _without_lists(_paragraphs(text))
    joined = "\n".join(filter(None, map(_prose, lines)))
    return joined if len(joined) >= SHORTEST_ARTICLE else ""
