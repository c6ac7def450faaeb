"""Cutting: documents to passages of whole words, texts to a number of tokens."""

import random
import re
from collections.abc import Sequence

from perimetry.assets.documents import Document
from perimetry.errors import TooFewSamples
from perimetry.suites.base import Length

__all__ = ["cut_to_tokens", "distinct", "passages"]

WORD = re.compile(r"\S+")


def passages(documents: Sequence[Document], *, words: int, n: int, seed: int) -> list[Document]:
    """`n` passages of exactly `words` words, drawn without overlap, from as many documents as possible.

    Every document gives one passage before any gives a second. A passage keeps the meta data of its document, and its
    id says where it was cut. Errors: `TooFewSamples` when the documents are too short or too few.
    """
    rng = random.Random(f"passages:{seed}")
    rounds: list[tuple[int, float, Document]] = []
    for document in documents:
        spans = [match.span() for match in WORD.finditer(document.text)]
        starts = list(range(0, len(spans) - words + 1, words))
        rng.shuffle(starts)
        for turn, start in enumerate(starts[:n]):
            text = document.text[spans[start][0] : spans[start + words - 1][1]]
            piece = Document(f"{document.id}@{start}", text, dict(document.meta))
            rounds.append((turn, rng.random(), piece))
    if len(rounds) < n:
        raise TooFewSamples(
            f"{len(documents)} documents give {len(rounds)} passages of {words} words; wanted {n}; give more or longer "
            "documents, or ask for fewer or shorter passages"
        )
    return [piece for _, _, piece in sorted(rounds, key=lambda entry: entry[:2])[:n]]


def cut_to_tokens(text: str, limit: int, length: Length) -> str:
    """The longest beginning of `text`, in whole words, that is no longer than `limit` tokens; may be empty.

    >>> cut_to_tokens("one two  three four", 3, lambda text: len(text.split()))
    'one two  three'
    """
    if length(text) <= limit:
        return text
    ends = [match.end() for match in WORD.finditer(text)]
    low, high = 0, len(ends)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if length(text[: ends[middle - 1]]) <= limit else (low, middle)
    return text[: ends[low - 1]] if low else ""


def distinct(documents: Sequence[Document], *, shingle: int = 5, overlap: float = 0.5) -> list[Document]:
    """The documents without near copies of earlier ones, in order.

    A near copy shares more than the share `overlap` of its runs of `shingle` words with one earlier document that was
    kept. Near copies would count one prompt several times and make every interval too narrow.
    """
    kept: list[Document] = []
    holders: dict[tuple[str, ...], list[int]] = {}
    for document in documents:
        words = re.findall(r"\w+", document.text.lower())
        runs = {tuple(words[i : i + shingle]) for i in range(max(1, len(words) - shingle + 1))}
        hits: dict[int, int] = {}
        for run in runs:
            for holder in holders.get(run, ()):
                hits[holder] = hits.get(holder, 0) + 1
        if max(hits.values(), default=0) > overlap * len(runs):
            continue
        for run in runs:
            holders.setdefault(run, []).append(len(kept))
        kept.append(document)
    return kept
