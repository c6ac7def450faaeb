"""Transformers of a language: trained on strings, written by, and judged with something else in the place of their states."""

import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from perimetry.axes import TokenIds
from perimetry.config import Config
from perimetry.labs.formal_languages.grammars import BOS, EOS, LANGUAGES, PAD, AbstractLanguage
from perimetry.labs.nano import Nano, NanoConfig
from perimetry.runtime import generator

__all__ = [
    "SITE",
    "LanguageArm",
    "Splice",
    "Texts",
    "losses",
    "states_of",
    "texts",
    "train_language",
    "validity",
    "write",
]

SITE: Final = 0
"""Block whose output is read and replaced."""
Splice = Callable[[Float[Tensor, "token d"]], Float[Tensor, "token d"]]
"""States of tokens of a string -> what stands in their place."""


class LanguageArm(Config):
    """A language, a model and its training."""

    language: str
    """Name of the language."""
    steps: int
    """Updates."""
    longest: int = 38
    """Longest string; longer ones are drawn again."""
    strings: int = 20_000
    """Training strings."""
    width: int = 64
    """Width of the residual stream."""
    heads: int = 2
    """Attention heads of each of two blocks."""
    batch: int = 64
    """Strings of an update."""
    lr: float = 2e-3
    """Learning rate of AdamW: 100 updates of warm-up, then a straight fall."""

    def grammar(self) -> AbstractLanguage:
        """The language itself."""
        return LANGUAGES[self.language]


class Texts(NamedTuple):
    """Strings as a model reads them."""

    ids: TokenIds
    """Beginning, string, end, padding."""
    inside: Bool[Tensor, "string position"]
    """True at the tokens of the string."""


def texts(strings: Sequence[Sequence[int]], longest: int) -> Texts:
    """Put a beginning before each string and an end behind it."""
    ids = torch.full((len(strings), longest + 2), PAD)
    inside = torch.zeros_like(ids, dtype=torch.bool)
    ids[:, 0] = BOS
    for row, string in enumerate(strings):
        end = len(string) + 1
        ids[row, 1:end] = torch.tensor(string)
        ids[row, end] = EOS
        inside[row, 1:end] = True
    return Texts(ids, inside)


def train_language(arm: LanguageArm, seed: int, steps: int) -> Nano:
    """Train on strings drawn beforehand."""
    language, source = arm.grammar(), random.Random(2_038_074_743 + seed)
    ids = texts([language.draw(source, arm.longest) for _ in range(arm.strings)], arm.longest).ids
    shape = NanoConfig(vocab=language.vocab, context=arm.longest + 2, width=arm.width, heads=arm.heads, tied=True)
    model = Nano(shape, seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=arm.lr, fused=True)
    draw = generator(1_299_709 + seed)
    for step in range(steps):
        rows = ids[torch.randint(0, len(ids), (arm.batch,), generator=draw)]
        # What is padding in every row costs nothing.
        rows = rows[:, : int((rows != PAD).sum(1).max())]
        optimiser.param_groups[0]["lr"] = arm.lr * min((step + 1) / 100, (steps - step) / steps)
        loss = _losses(model(rows[:, :-1]), rows).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model.requires_grad_(requires_grad=False).eval()


def _losses(logits: Float[Tensor, "string position vocab"], ids: TokenIds) -> Float[Tensor, " target"]:
    """Loss of every token after the first that is no padding, in nats."""
    targets = ids[:, 1:]
    return functional.cross_entropy(logits[targets != PAD], targets[targets != PAD], reduction="none")


def _replace(splice: Splice | None, inside: Bool[Tensor, "string position"]) -> Callable[[int, Tensor], Tensor] | None:
    if splice is None:
        return None

    def replace(block: int, x: Tensor) -> Tensor:
        if block != SITE:
            return x
        out = x.clone()
        out[inside] = splice(x[inside])
        return out

    return replace


@torch.no_grad()
def losses(model: Nano, read: Texts, splice: Splice | None = None) -> Float[Tensor, " target"]:
    """Loss of every token, with `splice` in the place of the states of the string."""
    logits = model.read(read.ids[:, :-1], replace=_replace(splice, read.inside[:, :-1])).logits
    return _losses(logits, read.ids)


@torch.no_grad()
def states_of(model: Nano, read: Texts) -> Float[Tensor, "token d"]:
    """States of the tokens of all strings, one after another."""
    return torch.cat(
        [
            model.read(ids, (SITE,)).residuals[SITE][inside]
            for ids, inside in zip(read.ids.split(512), read.inside.split(512), strict=True)
        ]
    )


@torch.no_grad()
def write(
    model: Nano,
    beginnings: Sequence[Sequence[int]],
    seed: int,
    splice: Splice | None = None,
) -> list[list[int] | None]:
    """A string from each beginning (all of one length), token by token as the model draws them; None where it does not end in time."""
    ids = torch.tensor([[BOS, *one] for one in beginnings])
    draw = generator(seed)
    done = torch.zeros(len(ids), dtype=torch.bool)
    while ids.shape[1] < model.config.context and not bool(done.all()):
        inside = (ids != PAD) & (ids != EOS)
        inside[:, 0] = False
        chances = model.read(ids, replace=_replace(splice, inside)).logits[:, -1].softmax(-1)
        token = torch.multinomial(chances, 1, generator=draw)[:, 0]
        ids = torch.cat([ids, torch.where(done, PAD, token)[:, None]], 1)
        done |= token == EOS
    return [_string(row) for row in ids.tolist()]


def _string(row: list[int]) -> list[int] | None:
    return row[1 : row.index(EOS)] if EOS in row else None


def validity(language: AbstractLanguage, written: Sequence[Sequence[int] | None]) -> float:
    """Share of what was written that ends and that the grammar gives."""
    return sum(one is not None and language.valid(one) for one in written) / len(written)
