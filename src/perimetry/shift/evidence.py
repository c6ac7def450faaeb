"""From prompts to evidence: one forward pass, read at the tap, flat over the tokens that count."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import (
    EncodedPrompt,
    PromptBatch,
    batch_runs,
    collate,
    encode,
    position_ids,
    scorable,
)
from perimetry.activations.tap import Tap, TapLogits
from perimetry.axes import Attention, Residual, TokenIds, TokenMask
from perimetry.errors import ConfigError, NonFinite, NoScorableToken, PerimetryError
from perimetry.measures.finite import all_finite
from perimetry.sae.base import AbstractSAE
from perimetry.shift.base import Evidence, LogitStats

Side = Literal["right", "left"]

__all__ = ["Capture", "Extractor", "Pass", "Prompt", "Side", "join_captures"]


class Prompt(NamedTuple):
    """A text made ready for the model."""

    id: str
    """The caller's name for it."""
    text: str
    """The text itself."""
    encoded: EncodedPrompt
    """Its tokens and which of them may count."""


class Capture(NamedTuple):
    """What the language model gave for a batch of prompts, before any dictionary: flat over tokens that count."""

    rows: tuple[int, ...]
    """For each prompt of the batch, its row in the sequence that was handed in."""
    acts: Float[Tensor, "token d_model"]
    """Residual stream at the tap, in the model's compute dtype."""
    tokens: Int[Tensor, " token"]
    """Vocabulary ids."""
    positions: Int[Tensor, " token"]
    """Position in the prompt, counted over real tokens."""
    prompt: Int[Tensor, " token"]
    """Row of the batch that the token belongs to."""
    words: Float[Tensor, " prompt"]
    """White-space words of each prompt."""
    excluded: tuple[int, ...]
    """Tokens of each prompt that the policy kept out."""
    counted: tuple[Bool[Tensor, " seq"], ...]
    """For each prompt, over its own tokens: which of them counted."""
    logits: LogitStats | None
    """Next-token statistics, or None where they were not asked for."""
    foresight: Float[Tensor, "token d_last"] | None
    """Last hidden state at the token before, in the model's compute dtype, or None where the pass stopped at the tap."""

    def evidence(self, sae: AbstractSAE) -> Evidence:
        """The evidence under one dictionary; several dictionaries can read the same capture."""
        acts = self.acts.float()
        output = sae(acts)
        return Evidence(
            acts=acts,
            codes=output.codes,
            reconstruction=output.reconstruction,
            tokens=self.tokens,
            positions=self.positions,
            prompt=self.prompt,
            words=self.words,
            logits=self.logits,
            foresight=None if self.foresight is None else self.foresight.float(),
        )


def join_captures(parts: Sequence[Capture]) -> Capture:
    """One capture of several, in their order."""
    if len(parts) == 1:
        return parts[0]
    firsts = [0, *itertools.accumulate(len(part.rows) for part in parts)]
    logits = [part.logits for part in parts if part.logits is not None]
    ahead = [part.foresight for part in parts if part.foresight is not None]
    return Capture(
        rows=tuple(row for part in parts for row in part.rows),
        acts=torch.cat([part.acts for part in parts]),
        tokens=torch.cat([part.tokens for part in parts]),
        positions=torch.cat([part.positions for part in parts]),
        prompt=torch.cat([part.prompt + first for part, first in zip(parts, firsts, strict=False)]),
        words=torch.cat([part.words for part in parts]),
        excluded=tuple(count for part in parts for count in part.excluded),
        counted=tuple(mask for part in parts for mask in part.counted),
        logits=LogitStats(*(torch.cat(field) for field in zip(*logits, strict=True))) if logits else None,
        foresight=torch.cat(ahead) if ahead else None,
    )


class Pass(NamedTuple):
    """What one forward pass over a batch left."""

    residual: Residual
    """Output of the tapped block."""
    full: TapLogits | None
    """The rest of the model, or None where the pass stopped before."""


@final
class Extractor:
    """A language model tapped after one block, with the rule which positions count.

    The policy must be fitted: `max_norm` decides which positions are attention sinks.
    """

    def __init__(self, lm: LanguageModel, layer: int, policy: TokenPolicy) -> None:
        if policy.max_norm is None:
            raise ConfigError(
                "the token policy has no max_norm, so attention sinks cannot be told; fit it first (harvest does, or "
                "TokenPolicy.fitted)"
            )
        self.lm = lm
        self.tap = Tap(lm, layer)
        self.policy = policy

    def prepare(
        self, ids: Sequence[str], texts: Sequence[str], *, truncate: bool = False, limit: int | None = None
    ) -> list[Prompt]:
        """Encode texts under the policy. Errors: `EmptyText`, `PromptTooLong`, `NoScorableToken`, each naming the id."""
        prompts: list[Prompt] = []
        for name, text in zip(ids, texts, strict=True):
            try:
                encoded = encode(self.lm, text, self.policy, truncate=truncate, limit=limit)
            except PerimetryError as error:
                error.args = (f"prompt {name!r}: {error}",)
                raise
            prompts.append(Prompt(name, text, encoded))
        return prompts

    def capture(
        self,
        prompts: Sequence[Prompt],
        *,
        logits: bool,
        foresight: bool = False,
        batch_tokens: int = 4096,
        side: Side = "right",
    ) -> Iterator[Capture]:
        """Run the model over prompts, prompts of like length together, `batch_tokens` padded tokens at a time.

        `logits` asks for all that a full pass gives, `foresight` for the last hidden state alone, which spares the
        vocabulary; without both the pass stops at the tap. Batches come longest first; `Capture.rows` says whose they are. Errors: `NonFinite` and `NoScorableToken`, naming the prompt.
        """
        for runs in batch_runs([len(p.encoded.ids) for p in prompts], batch_tokens):
            yield join_captures([self._run(rows, [prompts[i] for i in rows], logits, foresight, side) for rows in runs])

    def _run(
        self, rows: Sequence[int], prompts: Sequence[Prompt], logits: bool, foresight: bool, side: Side
    ) -> Capture:
        batch = collate([p.encoded for p in prompts], self.lm.pad_id, side)
        ids, attention = batch.ids.to(self.lm.device), batch.attention.to(self.lm.device)
        full = self.tap.read_with_logits(ids, attention) if logits or foresight else None
        residual = full.residual if full is not None else self.tap.read(ids, attention)
        return self.gather(rows, prompts, batch, Pass(residual, full), logits=logits)

    def gather(
        self,
        rows: Sequence[int],
        prompts: Sequence[Prompt],
        batch: PromptBatch,
        found: Pass,
        *,
        logits: bool,
        like: Capture | None = None,
    ) -> Capture:
        """What a forward pass over a batch of prompts says of the tokens that count.

        `like`: a capture of the same pass at another block; where the same tokens count in it, its next-token statistics are
        taken over. Errors: as `capture`.
        """
        residual, full = found.residual.cpu(), found.full
        counts = scorable(residual, batch.countable, self.policy)
        acts = residual[counts]
        if not all_finite(acts):
            bad = int(counts.nonzero()[:, 0][~acts.isfinite().all(1)][0])
            raise NonFinite(
                f"prompt {prompts[bad].id!r} gives NaN or infinite activations after block {self.tap.layer}; finite ones "
                "are wanted; try --dtype float32, or leave the prompt out"
            )
        per_prompt = counts.sum(1)
        if bool((per_prompt == 0).any()):
            bad = int((per_prompt == 0).nonzero()[0])
            raise NoScorableToken(
                f"prompt {prompts[bad].id!r}: every token is special or an attention sink, so none is left to score; "
                "give more text"
            )
        ids, attention = batch.ids.to(self.lm.device), batch.attention.to(self.lm.device)
        where = counts.to(ids.device)
        owner, places = counts.nonzero()[:, 0], position_ids(batch.attention)[counts]
        stats = None
        if full is not None and logits:
            same = like is not None and torch.equal(like.prompt, owner) and torch.equal(like.positions, places)
            stats = like.logits if like is not None and same else _stats(full, ids, attention, where)
        ahead = None if full is None else full.foresight(attention, where).cpu()
        if ahead is not None and not all_finite(ahead):
            bad = int(owner[~ahead.isfinite().all(1)][0])
            raise NonFinite(
                f"prompt {prompts[bad].id!r} gives NaN or infinity in the model's last hidden state; finite numbers are "
                "wanted; try --dtype float32, or leave the prompt out"
            )
        real = batch.attention.sum(1)
        return Capture(
            rows=tuple(rows),
            acts=acts,
            tokens=batch.ids[counts],
            positions=places,
            prompt=owner,
            words=torch.tensor([p.encoded.words for p in prompts], dtype=torch.float32),
            excluded=tuple((real - per_prompt).tolist()),
            counted=tuple(mask[seen] for mask, seen in zip(counts, batch.attention.bool(), strict=True)),
            logits=stats,
            foresight=ahead,
        )


def _stats(full: TapLogits, ids: TokenIds, attention: Attention, where: TokenMask) -> LogitStats:
    return LogitStats(*(s.cpu().float() for s in full.logit_stats(ids, attention, where)))
