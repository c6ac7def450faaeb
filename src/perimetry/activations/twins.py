"""A text and its corruption as rows of tokens, word by word: where each word ends, and which words nobody touched."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import EncodedPrompt, encode
from perimetry.errors import ConfigError, PerimetryError, UsageError

__all__ = ["Row", "Twin", "TwinRows", "encode_twin", "word_ends", "word_spans"]

WORD = re.compile(r"\S+")


class Twin(NamedTuple):
    """A text and its corruption, word by word."""

    id: str
    """Name of the pair, for messages."""
    clean: str
    """The text."""
    corrupted: str
    """As many white-space words."""


class Row(NamedTuple):
    """Tokens of one forward pass."""

    ids: list[int]
    """Vocabulary ids."""
    countable: list[bool]
    """True where a position counts by the policy, or everywhere where every position may be read."""


class TwinRows(NamedTuple):
    """The two rows of a pair, and what stands where in them."""

    id: str
    """Name of the pair."""
    clean: Row
    """The text."""
    corrupted: Row
    """Its corruption."""
    ends: tuple[list[int], list[int]]
    """Last token of each word, in the clean row and in the corrupted one."""
    kept: tuple[list[int], list[int]]
    """Tokens of the words that are the same in both, in the clean row and in the corrupted one: equal ids, place by place."""
    first: int
    """First word that differs; the number of words where none does. Both sides have read the same up to it."""


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where the white-space separated words of a text begin and end.

    >>> word_spans("an  owl")
    [(0, 2), (4, 7)]
    """
    return [found.span() for found in WORD.finditer(text)]


def word_ends(encoded: EncodedPrompt, words: Sequence[tuple[int, int]]) -> list[int]:
    """Last token that begins inside or before each word."""
    starts = [span[0] if span is not None else -1 for span in encoded.spans]
    ends: list[int] = []
    token = 0
    for _, end in words:
        while token + 1 < len(starts) and starts[token + 1] < end:
            token += 1
        ends.append(token)
    return ends


def encode_twin(lm: LanguageModel, twin: Twin, policy: TokenPolicy) -> TwinRows:
    """Both sides as the model reads them, with their words side by side.

    Errors: `UsageError` for unequal numbers of words, `ConfigError` for a policy with a chat template, `EmptyText`,
    `PromptTooLong`, each naming the pair.
    """
    if policy.template != "none":
        raise ConfigError("twins are plain text and the policy has a chat template; use template = 'none'")
    words = [word_spans(text) for text in (twin.clean, twin.corrupted)]
    if len(words[0]) != len(words[1]):
        raise UsageError(
            f"pair {twin.id!r} has {len(words[0])} clean and {len(words[1])} corrupted words; equal numbers are wanted; use a "
            "perturbation that keeps words apart"
        )
    try:
        sides = [encode(lm, text, policy) for text in (twin.clean, twin.corrupted)]
    except PerimetryError as error:
        error.args = (f"pair {twin.id!r}: {error}",)
        raise
    ends = [word_ends(side, spans) for side, spans in zip(sides, words, strict=True)]
    texts = [[text[a:b] for a, b in spans] for text, spans in zip((twin.clean, twin.corrupted), words, strict=True)]
    same = [one == other for one, other in zip(*texts, strict=True)]
    kept: tuple[list[int], list[int]] = ([], [])
    for word, untouched in enumerate(same):
        places = [list(_tokens(side, found, word)) for side, found in zip(sides, ends, strict=True)]
        if untouched and [sides[0].ids[i] for i in places[0]] == [sides[1].ids[i] for i in places[1]]:
            kept[0].extend(places[0])
            kept[1].extend(places[1])
    rows = [Row(side.ids, side.countable) for side in sides]
    first = same.index(False) if False in same else len(same)
    return TwinRows(twin.id, rows[0], rows[1], (ends[0], ends[1]), kept, first)


def _tokens(side: EncodedPrompt, ends: Sequence[int], word: int) -> range:
    """The tokens of a word; of the first one those from the beginning of the text on."""
    if word:
        return range(ends[word - 1] + 1, ends[word] + 1)
    start = next((i for i, span in enumerate(side.spans) if span is not None), 0)
    return range(start, ends[0] + 1)
