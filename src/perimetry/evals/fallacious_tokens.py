"""The tokens of twins side by side: which concepts of a corrupted text its clean twin and a harmless rewrite lack.

Parts of `fallacious.py`, which says what is compared with what.
"""

import bisect
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.activations.twins import WORD, Twin
from perimetry.errors import UsageError
from perimetry.sae.base import Codes
from perimetry.shift.concepts import FallaciousF1
from perimetry.shift.context import FallaciousF2
from perimetry.shift.meter import Meter

__all__ = ["Tally", "TokenText", "changed_words", "read_texts", "tally"]


class TokenText(NamedTuple):
    """What one forward pass says of one text."""

    codes: Codes
    """Concepts of the tokens that count."""
    words: Int[Tensor, " token"]
    """White-space word of each token; as many as there are words for tokens after the last."""
    f1: Bool[Tensor, "token k"]
    """Code slots that F1 calls false."""
    f2: Bool[Tensor, "token k"]
    """Code slots that F2 calls false."""


class Tally(NamedTuple):
    """Sums of one pair, changed words first, then unchanged ones."""

    flagged: Float[Tensor, "two flag"]
    """Pairs of token and concept: all active ones, those that F1 flags, those that F2 flags."""
    false: Float[Tensor, "two oracle"]
    """Pairs that are false: beyond the clean twin and the rewrite, beyond the clean twin."""
    hit: Float[Tensor, "two oracle flag"]
    """Pairs that are both."""
    tokens: Float[Tensor, " two"]
    """Tokens compared."""
    harmless: Float[Tensor, " two"]
    """What the harmless rewrite brings, over as many tokens."""


def changed_words(twin: Twin) -> Bool[Tensor, " word"]:
    """Which white-space words the corruption changed. Errors: `UsageError` where the numbers of words differ."""
    clean, corrupted = WORD.findall(twin.clean), WORD.findall(twin.corrupted)
    if len(clean) != len(corrupted):
        raise UsageError(
            f"pair {twin.id!r} has {len(clean)} clean and {len(corrupted)} corrupted words; equal numbers are wanted; use a "
            "perturbation that keeps words apart"
        )
    return torch.tensor([a != b for a, b in zip(clean, corrupted, strict=True)], dtype=torch.bool)


def read_texts(
    meter: Meter, f1: FallaciousF1, f2: FallaciousF2, names: Sequence[str], texts: Sequence[str], batch_tokens: int
) -> list[TokenText]:
    """The concepts and flags of each text, in order; the model runs to the tap only. Errors: those of `Extractor`."""
    prompts = meter.extractor.prepare(names, texts)
    found: dict[int, TokenText] = {}
    for capture in meter.extractor.capture(prompts, logits=False, batch_tokens=batch_tokens):
        evidence = capture.evidence(meter.sae)
        everything = torch.arange(evidence.tokens.shape[0])
        flags = [torch.cat([d.false_slots(evidence, rows) for rows in everything.split(256)]) for d in (f1, f2)]
        for row, index in enumerate(capture.rows):
            mine = (evidence.prompt == row).nonzero()[:, 0]
            spans = [prompts[index].encoded.spans[i] for i in capture.counted[row].nonzero()[:, 0].tolist()]
            words = _word_of(prompts[index].text, spans)
            found[index] = TokenText(evidence.codes.select(mine), words, flags[0][mine], flags[1][mine])
    return [found[i] for i in range(len(texts))]


def _word_of(text: str, spans: Sequence[tuple[int, int] | None]) -> Int[Tensor, " token"]:
    """The white-space word that each token belongs to: the first that does not end before the token starts."""
    ends = [match.end() for match in re.finditer(WORD, text)]
    outside = len(ends)
    return torch.tensor([outside if s is None else bisect.bisect_right(ends, s[0]) for s in spans], dtype=torch.int64)


def _compared(text: TokenText, changed: Bool[Tensor, " word"]) -> Int[Tensor, " used"]:
    """The tokens that are compared: all of a changed word, the last one of another."""
    places = torch.arange(text.words.numel())
    last = torch.full((changed.numel() + 1,), -1).scatter_reduce_(0, text.words, places, "amax")
    whole = torch.cat([changed, torch.zeros(1, dtype=torch.bool)])[text.words]
    return ((text.words < changed.numel()) & (whole | (last[text.words] == places))).nonzero()[:, 0]


def _marks(codes: Codes, flags: Bool[Tensor, "token k"]) -> Bool[Tensor, "token d_sae"]:
    """Dense marks from marks on code slots."""
    out = torch.zeros(codes.indices.shape[0], codes.width)
    return out.scatter_add_(1, codes.indices, flags.float()) > 0


def _of_words(active: Bool[Tensor, "used d_sae"], words: Int[Tensor, " used"], n: int) -> Bool[Tensor, "word d_sae"]:
    """Concepts that are active on any of the compared tokens of each word."""
    return torch.zeros(n, active.shape[1]).index_add_(0, words, active.float()) > 0


def tally(clean: TokenText, corrupted: TokenText, harmless: TokenText, changed: Bool[Tensor, " word"]) -> Tally:
    """The sums of one pair, of which `changed` says which words the corruption touched."""
    n = changed.numel()
    used = [_compared(text, changed) for text in (clean, corrupted, harmless)]
    words = [text.words[rows] for text, rows in zip((clean, corrupted, harmless), used, strict=True)]
    # A word all of whose tokens were kept out, as sinks are, has nothing to be compared with.
    there = torch.stack([torch.bincount(w, minlength=n) > 0 for w in words]).all(0)
    used = [rows[there[w]] for rows, w in zip(used, words, strict=True)]
    words = [w[there[w]] for w in words]
    active = [
        _marks(text.codes.select(rows), text.codes.values[rows] != 0)
        for text, rows in zip((clean, corrupted, harmless), used, strict=True)
    ]
    known = _of_words(active[0], words[0], n)
    fresh = active[1] & ~known[words[1]]
    false = torch.stack([fresh & ~_of_words(active[2], words[2], n)[words[1]], fresh])
    codes = corrupted.codes.select(used[1])
    flags = torch.stack([active[1], *(_marks(codes, flag[used[1]]) for flag in (corrupted.f1, corrupted.f2))])
    arm = (~changed[words[1]]).long()

    def summed(per_token: Float[Tensor, "used *more"]) -> Tensor:
        return torch.zeros(2, *per_token.shape[1:]).index_add_(0, arm, per_token)

    hit = torch.stack([(flags & truth).sum(2).T.float() for truth in false], 1)
    extra = (active[2] & ~known[words[2]]).sum(1).float()
    mean = torch.zeros(n).index_add_(0, words[2], extra) / torch.bincount(words[2], minlength=n).clamp_min(1)
    return Tally(
        flagged=summed(flags.sum(2).T.float()),
        false=summed(false.sum(2).T.float()),
        hit=summed(hit),
        tokens=summed(torch.ones(words[1].numel())),
        harmless=summed(mean[words[1]]),
    )
