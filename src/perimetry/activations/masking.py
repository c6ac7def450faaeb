"""Tokens replaced at random before the model reads them: what breaks the co-occurrence of features in training data.

After Narayanaswamy et al. (arXiv 2604.06495, 2026): the language model runs on the masked text and a dictionary is trained
on what it then computes, with its usual objective. Which tokens are replaced depends on the seed, the epoch and the place in
the text alone, so that a resumed run, another batch size or another start give the same rows.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveInt, model_serializer, model_validator
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.text import HasText, PackedRow, token_ids
from perimetry.config import Config
from perimetry.errors import ConfigError, TooFewSamples

__all__ = ["Masker", "Masking", "ReadsMasked", "require_plain"]

COUNTED_DOCUMENTS: Final = 512
"""Documents, from the first on, whose tokens make the frequencies of `unigram`."""


class Masking(Config):
    """Which tokens are replaced, by what, and which positions the dictionary then learns from."""

    probability: float = Field(default=0.3, gt=0, lt=1)
    """Chance that a countable token is replaced; the published comparison uses .3 (its conclusion misprints .3 %)."""
    kind: Literal["string", "token", "eos", "random", "unigram", "kept"] = "string"
    """What takes its place: the tokens of `string`, the one `token`, the model's end of text, any plain token of the vocabulary,
    one drawn by its frequency in the text, or itself (`kept`: a control that reads clean text)."""
    string: str = "[MASK]"
    """Literal text; where it is several tokens they stand in turn along a replaced run, so set `span` to their number to see it
    whole."""
    token: str | None = None
    """Text of one entry of the vocabulary, special and unused ones included, for `kind = "token"`."""
    span: PositiveInt = 1
    """Tokens in a row that are replaced together; the share that is replaced stays `probability`."""
    schedule: Literal["constant", "annealed", "mixture"] = "constant"
    """`constant`; `annealed` from `probability` to `final` over the first `over` documents, each epoch counted anew as more
    of them; `mixture`: each row is masked with chance `share`, else left as it is."""
    final: float = Field(default=0.0, ge=0, lt=1)
    """Where `annealed` ends."""
    over: PositiveInt = 10_000
    """Documents after which `annealed` is there."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Chance that `mixture` masks a row."""
    positions: Literal["all", "unmasked", "after"] = "all"
    """What enters the dictionary's loss: all positions that the policy counts, those that were not replaced, or of these only the
    ones with a replaced token before them in their row."""
    variant: Literal["masked", "denoising", "consistency"] = "masked"
    """Ours beside the published `masked`: `denoising` reads the masked activation and gives the clean one; `consistency` asks codes of
    both to agree (the recipe's `smooth` is its weight)."""
    seed: int = 0
    """Of what is replaced."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Masking":
        if (self.token is None) == (self.kind == "token"):
            wanted = "give token = TEXT" if self.kind == "token" else "leave token out, or set kind = 'token'"
            raise ValueError(f"kind = {self.kind!r} with token = {self.token!r}; {wanted}")
        if self.kind == "string" and not self.string:
            raise ValueError("the mask string is empty; give a text such as '[MASK]'")
        if self.schedule == "annealed" and self.final == self.probability:
            raise ValueError(
                f"annealed from {self.probability} to {self.final} is constant; give another final, or that schedule"
            )
        if self.variant != "masked" and self.kind == "kept":
            raise ValueError(
                f"variant = {self.variant!r} compares masked with clean activations and kind = 'kept' masks nothing"
            )
        return self

    def probability_at(self, documents: int) -> float:
        """Chance of a replacement after `documents` documents.

        >>> Masking(schedule="annealed", probability=0.4, final=0.0, over=100).probability_at(25)
        0.3
        """
        if self.schedule != "annealed":
            return self.probability
        gone = min(1.0, documents / self.over)
        return round(self.probability + (self.final - self.probability) * gone, 12)


class ReadsMasked(Config):
    """Base of the configurations by which text is read."""

    masking: Masking | None = None
    """Tokens that are replaced before the model reads them; None reads the text as it is."""

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Plain text is described as it was before there was masking, so that stores and checkpoints keep their identity."""
        plain: dict[str, Any] = handler(self)
        return {key: value for key, value in plain.items() if key != "masking" or value is not None}


def require_plain(masking: Masking | None, instead: str) -> None:
    """Refuse a variant that needs the clean activations too. Errors: `ConfigError`."""
    if masking is not None and masking.variant != "masked":
        raise ConfigError(
            f"masking with variant = {masking.variant!r} needs masked and clean activations side by side, and only one of them is "
            f"read here; use {instead}, or variant = 'masked'"
        )


def _replacements(masking: Masking, lm: LanguageModel) -> list[int]:
    """The ids that a fixed kind puts in, in turn. Errors: `ConfigError` where the vocabulary has none."""
    if masking.kind == "string":
        found = lm.plain_tokenizer.encode(masking.string, add_special_tokens=False).ids
        if not found:
            raise ConfigError(f"the mask string {masking.string!r} has no token in {lm.name!r}; give another")
        return list(found)
    if masking.kind == "token":
        index = lm.plain_tokenizer.token_to_id(masking.token or "")
        if index is None:
            raise ConfigError(
                f"{masking.token!r} is no entry of the vocabulary of {lm.name!r}; give the exact text of one, such as "
                f"{lm.plain_tokenizer.id_to_token(0)!r}"
            )
        return [index]
    if lm.separator_id is None:
        raise ConfigError(f"{lm.name!r} has no token that ends a text; choose another kind of mask")
    return [lm.separator_id]


@final
class Masker:
    """A masking bound to a model and a text."""

    def __init__(self, masking: Masking, lm: LanguageModel, documents: Sequence[HasText], policy: TokenPolicy) -> None:
        self.masking = masking
        """What it does."""
        self._documents = documents
        self._special = lm.special_ids if policy.exclude_special else frozenset[int]()
        self._fixed: Int[Tensor, " id"] | None = None
        self._weights: Float[Tensor, " vocab"] | None = None
        if masking.kind in ("string", "token", "eos"):
            self._fixed = torch.tensor(_replacements(masking, lm))
        elif masking.kind != "kept":
            self._weights = _frequencies(lm, documents, uniform=masking.kind == "random")

    def __call__(self, rows: Sequence[PackedRow], epoch: int = 0) -> list[PackedRow]:
        """The rows as the model shall read them, with the positions that the dictionary learns from."""
        return [self._masked(row, epoch) for row in rows]

    def _draw(self, row: PackedRow, epoch: int) -> torch.Generator:
        name = f"{self.masking.seed}\x00{epoch}\x00{self._documents[row.start.document].id}\x00{row.start.offset}"
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def _masked(self, row: PackedRow, epoch: int) -> PackedRow:
        draw, countable = self._draw(row, epoch), torch.tensor(row.countable)
        where = self._where(countable, epoch * len(self._documents) + row.start.document, draw)
        ids = torch.tensor(row.ids)
        ids[where] = self._fill(ids, where, draw)
        learnt = countable.clone()
        if self.masking.positions != "all":
            learnt &= ~where
        if self.masking.positions == "after":
            learnt &= where.cumsum(0) > 0
        # What the policy keeps out it keeps out as a mask, too.
        special = torch.tensor([i in self._special for i in ids.tolist()])
        return row._replace(ids=ids.tolist(), countable=(learnt & ~special).tolist())

    def _where(self, countable: Bool[Tensor, " seq"], document: int, draw: torch.Generator) -> Bool[Tensor, " seq"]:
        """The positions that are replaced."""
        m = self.masking
        whole = float(torch.rand((), generator=draw))
        chance = m.probability_at(document)
        if m.schedule == "mixture" and whole >= m.share:
            chance = 0.0
        # A position is spared where none of the `span` starts that could cover it was drawn.
        start = 1 - (1 - chance) ** (1 / m.span)
        begins = torch.rand(countable.shape[0] + m.span - 1, generator=draw) < start
        covered = begins.double().cumsum(0)
        covered[m.span :] -= covered[: -m.span].clone()
        return (covered[m.span - 1 :] > 0) & countable

    def _fill(
        self, ids: Int[Tensor, " seq"], where: Bool[Tensor, " seq"], draw: torch.Generator
    ) -> Int[Tensor, " masked"]:
        count = int(where.sum())
        if self._fixed is not None:
            # Places along each run of replaced tokens, from 0.
            steps = torch.arange(where.shape[0])
            last = torch.where(where, -1, steps).cummax(0).values
            return self._fixed[(steps - last - 1)[where] % self._fixed.shape[0]]
        if self._weights is None or not count:
            return ids[where]
        return torch.multinomial(self._weights, count, replacement=True, generator=draw)


def _frequencies(lm: LanguageModel, documents: Sequence[HasText], *, uniform: bool) -> Float[Tensor, " vocab"]:
    """How often each plain token stands in the first documents, or 1 for all of them. Errors: `TooFewSamples`."""
    size = lm.plain_tokenizer.get_vocab_size()
    counts = torch.ones(size) if uniform else torch.zeros(size)
    for ids in () if uniform else _first(documents, lm):
        counts += torch.bincount(torch.tensor(ids, dtype=torch.long), minlength=size)[:size]
    counts[[i for i in lm.special_ids if i < size]] = 0
    if float(counts.sum()) == 0:
        raise TooFewSamples("the documents hold no plain token to draw masks from; give texts with plain words")
    return counts


def _first(documents: Sequence[HasText], lm: LanguageModel) -> Iterator[list[int]]:
    return (ids for _, ids in islice(token_ids(documents, lm), COUNTED_DOCUMENTS))
