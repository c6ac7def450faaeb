"""One text to token ids with a mask of the positions that count, and texts to padded batches."""

import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

import torch

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.axes import Attention, Residual, TokenIds, TokenMask
from perimetry.errors import ConfigError, EmptyText, NoScorableToken, PromptTooLong

__all__ = [
    "EncodedPrompt",
    "PromptBatch",
    "alike",
    "batch_runs",
    "collate",
    "encode",
    "length_batches",
    "policy_ids",
    "position_ids",
    "scorable",
    "token_text",
]

ALIKE: Final = 0.85
"""Share of the longest prompt of a batch that a prompt must have to be padded with it."""
RUNS: Final = 8
"""Runs of the model that a full batch may be cut into so that it pads little."""
SURROGATES = re.compile("[\ud800-\udfff]")


@runtime_checkable
class HasTokens(Protocol):
    """What `collate` needs of a prompt or of a packed row."""

    @property
    def ids(self) -> list[int]:
        """Vocabulary ids."""
        ...

    @property
    def countable(self) -> list[bool]:
        """True where a position counts."""
        ...


class EncodedPrompt(NamedTuple):
    """A text as the model reads it."""

    ids: list[int]
    """Vocabulary ids, with what the policy adds."""
    countable: list[bool]
    """True where the position counts by the policy; the norm rule comes later, it needs the activations."""
    spans: list[tuple[int, int] | None]
    """Characters of the text that each token covers, end exclusive; None for tokens that are not of the text."""
    truncated: bool
    """True where the end of the text was cut off, which happens on demand only."""
    words: int
    """White-space separated words of the text that was read, at least 1."""

    def pieces(self, text: str) -> list[str]:
        """The characters of `text` under each token; empty for tokens that are not of the text."""
        return [text[span[0] : span[1]] if span else "" for span in self.spans]


class PromptBatch(NamedTuple):
    """Prompts as a padded rectangle."""

    ids: TokenIds
    """Vocabulary ids; padding holds `pad_id`."""
    attention: Attention
    """1 where a token is real."""
    countable: TokenMask
    """True where a position counts."""


def policy_ids(lm: LanguageModel, policy: TokenPolicy) -> tuple[list[int], list[int]]:
    """The ids that the policy puts before and after a text."""
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    if policy.template == "chat":
        if lm.template is None:
            raise ConfigError(
                f"the token policy wants a chat template and {lm.name!r} has none that keeps the user's text whole; "
                "use template = 'none' or an instruction-tuned model"
            )
        before, after = lm.template
    if policy.prepend_bos and lm.bos_id is not None and before[:1] != (lm.bos_id,):
        before = (lm.bos_id, *before)
    return list(before), list(after)


def _check_length(count: int, limit: int, fixed: int, *, truncate: bool) -> None:
    if limit <= fixed:
        raise ConfigError(
            f"a limit of {limit} tokens leaves no room beside the {fixed} that the token policy adds; raise the limit"
        )
    if count > limit and not truncate:
        raise PromptTooLong(
            f"the text has {count} tokens, at most {limit} fit the context; shorten it, or pass --truncate to read its "
            "beginning only"
        )


def encode(
    lm: LanguageModel, text: str, policy: TokenPolicy, *, truncate: bool = False, limit: int | None = None
) -> EncodedPrompt:
    """The token ids of `text` as the policy wants them, with the positions that count.

    What looks like a special token inside the text is read as plain characters, so a text cannot forge a turn of the
    chat template. Template and text are tokenised apart. `limit` (at most the model's context) is in tokens, template
    and BOS included; with `truncate` the end of the text gives way, the template stays whole.

    Errors: `EmptyText`, `PromptTooLong` (never cut silently), `NoScorableToken`, `ConfigError` (no chat template).
    """
    if not text.strip():
        raise EmptyText("the text is empty or white space; wanted at least one character to score; remove the line")
    before, after = policy_ids(lm, policy)
    most = min(limit or lm.context, lm.context)
    coded = lm.plain_tokenizer.encode(SURROGATES.sub("\ufffd", text), add_special_tokens=False)
    fixed = len(before) + len(after)
    _check_length(fixed + len(coded.ids), most, fixed, truncate=truncate)
    inner, offsets = coded.ids[: most - fixed], coded.offsets[: most - fixed]
    truncated = len(inner) < len(coded.ids)
    counts = [not (policy.exclude_special and i in lm.special_ids) for i in inner]
    if not any(counts):
        raise NoScorableToken(
            f"none of the {len(inner)} tokens of the text counts under the token policy; wanted at least one plain "
            "token; change the text or the policy"
        )
    outside = policy.template == "none" and not policy.exclude_special
    read = text[: offsets[-1][1]] if truncated else text
    return EncodedPrompt(
        ids=[*before, *inner, *after],
        countable=[outside] * len(before) + counts + [False] * len(after),
        spans=[*[None] * len(before), *[(int(a), int(b)) for a, b in offsets], *[None] * len(after)],
        truncated=truncated,
        words=max(1, len(read.split())),
    )


def collate(prompts: Sequence[HasTokens], pad_id: int, side: Literal["right", "left"] = "right") -> PromptBatch:
    """Pad prompts to their longest; the activations do not depend on the side."""
    longest = max(len(p.ids) for p in prompts)
    shape = (len(prompts), longest)
    ids = torch.full(shape, pad_id, dtype=torch.long)
    attention = torch.zeros(shape, dtype=torch.long)
    countable = torch.zeros(shape, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        n = len(prompt.ids)
        where = slice(0, n) if side == "right" else slice(longest - n, longest)
        ids[row, where] = torch.tensor(prompt.ids, dtype=torch.long)
        attention[row, where] = 1
        countable[row, where] = torch.tensor(prompt.countable, dtype=torch.bool)
    return PromptBatch(ids, attention, countable)


def position_ids(attention: Attention) -> TokenIds:
    """Position of each real token, counted over real tokens from 0; padding holds 0 or its neighbour's.

    >>> position_ids(torch.tensor([[0, 1, 1], [1, 1, 0]])).tolist()
    [[0, 0, 1], [0, 1, 1]]
    """
    return (attention.cumsum(1) - 1).clamp_(min=0)


def scorable(residual: Residual, countable: TokenMask, policy: TokenPolicy) -> TokenMask:
    """The countable positions whose residual norm is at most the policy's `max_norm` (all where that is None).

    A norm that is not finite counts, so that it is seen and refused later rather than dropped as a sink.
    """
    if policy.max_norm is None:
        return countable
    norm = residual.float().norm(dim=-1).to(countable.device)
    return countable & ~((norm > policy.max_norm) & norm.isfinite())


def length_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Index lists of prompts of like length, longest first, each padded to at most `max_tokens` (or one prompt).

    >>> list(length_batches([3, 9, 4], 10))
    [[1], [2, 0]]
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and lengths[batch[0]] * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def alike(lengths: Sequence[int], batch: Sequence[int], enough: int) -> Iterator[list[int]]:
    """A batch of `length_batches` in parts that pad little: what fewer runs of the model would save is lost to padding.

    A part of `enough` tokens takes no prompt shorter than `ALIKE` of its longest.

    >>> list(alike([50, 100, 99, 90], [1, 2, 3, 0], 100))
    [[1, 2, 3], [0]]
    """
    part: list[int] = []
    for index in batch:
        if part:
            longest = lengths[part[0]]
            if longest * len(part) >= enough and lengths[index] < ALIKE * longest:
                yield part
                part = []
        part.append(index)
    if part:
        yield part


def batch_runs(lengths: Sequence[int], max_tokens: int) -> Iterator[list[list[int]]]:
    """Each batch of `length_batches` as the runs of the model in which it pads little.

    >>> list(batch_runs([50, 100, 99, 90], 800))
    [[[1, 2, 3], [0]]]
    """
    for batch in length_batches(lengths, max_tokens):
        yield list(alike(lengths, batch, max_tokens // RUNS))


def token_text(lm: LanguageModel, token_id: int) -> str:
    """A token as text, its leading space kept; bytes that are no character show as the replacement sign."""
    token = lm.plain_tokenizer.id_to_token(token_id)
    if token is None:
        return f"<{token_id}>"
    if "\u2581" in token:
        return token.replace("\u2581", " ")
    return lm.plain_tokenizer.decode([token_id], skip_special_tokens=False)
