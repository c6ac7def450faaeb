"""What a corruption does to the model itself, and whether a score follows it.

Damage is measured on twins, a clean text and its corruption with as many white-space words, never from the score:

* `kl`: KL(clean || corrupted) of the next-token distributions after each word, both having read up to its end; mean over
  the words, in nats. Words before the first changed one give 0.
* `nll_rise`: the first two thirds of the words corrupted, the last third clean: how much less the model expects those
  clean words than after the clean beginning, mean over their tokens, in nats. Damage on words that nobody touched.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import collate, encode, length_batches
from perimetry.activations.tap import Tap, TapLogits
from perimetry.activations.twins import Row, Twin, word_ends, word_spans
from perimetry.errors import ConfigError, PerimetryError, UsageError

__all__ = ["Damage", "damage", "last_hidden", "log_probabilities", "row_nll"]

CHUNK_BYTES = 2**24
"""Of one chunk of logits; the few that live at once stay well under 200 MB."""


class Damage(NamedTuple):
    """What the corruption of each pair did to the model; higher = more damage."""

    ids: tuple[str, ...]
    """Names of the pairs, in the order given."""
    kl: Float[Tensor, " pair"]
    """Mean KL divergence over words, in nats; 0 = no change."""
    nll_rise: Float[Tensor, " pair"]
    """Mean rise of the negative log-likelihood of the clean last third, in nats; below 0 where it became likelier."""
    words: Int[Tensor, " pair"]
    """Words that the first is a mean over."""
    tokens: Int[Tensor, " pair"]
    """Tokens that the second is a mean over."""


class _Plan(NamedTuple):
    """The three rows of a pair and where to read them."""

    rows: tuple[Row, Row, Row]
    """Clean; corrupted; corrupted beginning with clean end."""
    ends: tuple[list[int], list[int]]
    """Last token of each word, in the clean row and in the corrupted one."""
    tail: int
    """Tokens of the clean last third: the last ones of the first and the third row."""

    @property
    def longest(self) -> int:
        return max(len(row.ids) for row in self.rows)


def log_probabilities(lm: LanguageModel, hidden: Float[Tensor, "n d_model"]) -> Float[Tensor, "n vocab"]:
    """Log-probabilities of the next token after each hidden state (of the final norm), float32; give few at a time."""
    return TapLogits(lm, hidden[None], hidden[None]).logits()[0].float().log_softmax(1)


def last_hidden(lm: LanguageModel, rows: Sequence[Row]) -> Float[Tensor, "row seq d_model"]:
    """Hidden states after the final norm, rows padded on the right."""
    batch = collate(rows, lm.pad_id)
    return Tap(lm, 0).read_with_logits(batch.ids.to(lm.device), batch.attention.to(lm.device)).hidden


def damage(
    lm: LanguageModel, twins: Sequence[Twin], *, policy: TokenPolicy | None = None, batch_tokens: int = 2048
) -> Damage:
    """Damage of each pair, in order; three short passes of the whole model a pair, `batch_tokens` padded tokens at once.

    Logits exist a chunk at a time. Errors: `UsageError` for twins of unequal numbers of words or of fewer than three,
    `ConfigError` for a policy with a chat template, `EmptyText`, `PromptTooLong`, each naming the pair.
    """
    policy = policy or TokenPolicy()
    if policy.template != "none":
        raise ConfigError("damage is measured on plain text and the policy has a chat template; use template = 'none'")
    plans = [_plan(lm, twin, policy) for twin in twins]
    kl, rise = torch.zeros(len(plans)), torch.zeros(len(plans))
    for members in length_batches([3 * plan.longest for plan in plans], batch_tokens):
        hidden = last_hidden(lm, [row for i in members for row in plans[i].rows])
        for at, i in enumerate(members):
            clean, corrupted, mixed = hidden[3 * at], hidden[3 * at + 1], hidden[3 * at + 2]
            kl[i] = _divergence(lm, clean[plans[i].ends[0]], corrupted[plans[i].ends[1]])
            after, before = plans[i].rows[2], plans[i].rows[0]
            tail = plans[i].tail
            rise[i] = row_nll(lm, mixed, after.ids, tail) - row_nll(lm, clean, before.ids, tail)
    return Damage(
        ids=tuple(t.id for t in twins),
        kl=kl,
        nll_rise=rise,
        words=torch.tensor([len(p.ends[0]) for p in plans], dtype=torch.int64),
        tokens=torch.tensor([p.tail for p in plans], dtype=torch.int64),
    )


def _plan(lm: LanguageModel, twin: Twin, policy: TokenPolicy) -> _Plan:
    words = [word_spans(text) for text in (twin.clean, twin.corrupted)]
    if len(words[0]) != len(words[1]) or len(words[0]) < 3:
        raise UsageError(
            f"pair {twin.id!r} has {len(words[0])} clean and {len(words[1])} corrupted words; equal numbers, at least 3, "
            "are wanted; use a perturbation that keeps words apart"
        )
    cut = math.ceil(2 * len(words[0]) / 3)
    cut -= cut == len(words[0])
    clean_end, corrupted_end = words[0][cut - 1][1], words[1][cut - 1][1]
    try:
        clean, corrupted = encode(lm, twin.clean, policy), encode(lm, twin.corrupted, policy)
        beginning = encode(lm, twin.corrupted[:corrupted_end], policy)
    except PerimetryError as error:
        error.args = (f"pair {twin.id!r}: {error}",)
        raise
    tail = [i for i, span in zip(clean.ids, clean.spans, strict=True) if span is not None and span[0] >= clean_end]
    mixed = [*beginning.ids, *tail]
    return _Plan(
        (_row(clean.ids), _row(corrupted.ids), _row(mixed)),
        (word_ends(clean, words[0]), word_ends(corrupted, words[1])),
        len(tail),
    )


def _row(ids: list[int]) -> Row:
    return Row(ids, [True] * len(ids))


def _chunks(lm: LanguageModel, n: int) -> Iterator[slice]:
    step = max(1, CHUNK_BYTES // (4 * int(lm.model.config.vocab_size)))
    for start in range(0, n, step):
        yield slice(start, start + step)


def _divergence(lm: LanguageModel, clean: Tensor, corrupted: Tensor) -> float:
    total = 0.0
    for part in _chunks(lm, clean.shape[0]):
        p, q = log_probabilities(lm, clean[part]), log_probabilities(lm, corrupted[part])
        total += float((q.neg_().add_(p).mul_(p.exp_())).sum(1).double().sum())
    # Rounding may leave a hair below 0.
    return max(0.0, total / clean.shape[0])


def row_nll(lm: LanguageModel, hidden: Tensor, ids: list[int], tail: int) -> float:
    """Mean negative log-likelihood of the last `tail` tokens of a row."""
    first = len(ids) - tail
    before, targets = hidden[first - 1 : len(ids) - 1], torch.tensor(ids[first:], device=hidden.device)
    total = 0.0
    for part in _chunks(lm, tail):
        total -= float(log_probabilities(lm, before[part]).gather(1, targets[part, None]).double().sum())
    return total / tail
