"""Transformers of a language: trained on strings, and read with something else in the place of their states."""

import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from perimetry.axes import TokenIds
from perimetry.config import Config
from perimetry.labs.descent import descend
from perimetry.labs.formal_languages.grammars import BOS, EOS, LANGUAGES, PAD, AbstractLanguage
from perimetry.labs.nano import Nano, NanoConfig
from perimetry.runtime import generator

__all__ = [
    "SITE",
    "LanguageArm",
    "Rows",
    "Site",
    "Splice",
    "Texts",
    "losses",
    "packed",
    "read_to_site",
    "rest",
    "states_of",
    "texts",
    "train_language",
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
    batch: int = 16
    """Rows of an update; a row holds as many strings as fit into the longest one's place, mostly four to six."""
    lr: float = 4e-3
    """Learning rate of AdamW: 100 updates of warm-up, then a straight fall."""

    deviation: float = 0.1
    """Standard deviation of the first weights."""
    beta: float = 0.98
    """Second moment of AdamW."""

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


class Rows(NamedTuple):
    """Strings side by side in rows, which costs a fifth of one string a row."""

    inputs: TokenIds
    """Beginnings and strings."""
    targets: TokenIds
    """What follows each; padding where nothing does."""
    owner: TokenIds
    """Number of the string, by which a token sees its own only."""

    def chosen(self, which: Int[Tensor, " row"]) -> "Rows":
        """Some of the rows."""
        return Rows(*(one[which] for one in self))


class Site(NamedTuple):
    """Rows read as far as the site."""

    x: Float[Tensor, "row place d"]
    """Output of the block."""
    inside: Bool[Tensor, "row place"]
    """True at tokens of strings."""
    sees: Bool[Tensor, "row 1 place place"]
    """Which token sees which."""


def packed(strings: Sequence[Sequence[int]], room: int) -> Rows:
    """Each string in the first of the last rows begun that has room for it."""
    rows: list[list[Sequence[int]]] = []
    left: list[int] = []
    for string in strings:
        need = len(string) + 1
        where = next((i for i in range(max(0, len(rows) - 8), len(rows)) if left[i] >= need), len(rows))
        if where == len(rows):
            rows.append([])
            left.append(room)
        rows[where].append(string)
        left[where] -= need
    made = Rows(*(torch.full((len(rows), room), PAD) for _ in range(3)))
    for row, several in enumerate(rows):
        begin = 0
        for number, string in enumerate(several):
            end = begin + len(string) + 1
            made.inputs[row, begin:end] = torch.tensor([BOS, *string])
            made.targets[row, begin:end] = torch.tensor([*string, EOS])
            made.owner[row, begin:end] = PAD + 1 + number
            begin = end
    return made


def _through(model: Nano, x: Tensor, sees: Tensor, begin: int, end: int) -> Tensor:
    # Positions turn queries and keys against each other, so that it does not matter where in a row a string begins.
    for block in model.blocks[begin:end]:
        x = block(x, model.turn[: x.shape[1]], sees=sees)
    return x


def read_to_site(model: Nano, rows: Rows) -> Site:
    """The states at the site."""
    room = rows.inputs.shape[1]
    own = rows.owner[:, :, None] == rows.owner[:, None]
    sees = (own & torch.ones(room, room, dtype=torch.bool).tril())[:, None]
    inside = (rows.inputs != BOS) & (rows.inputs != PAD)
    return Site(_through(model, model.embed(rows.inputs), sees, 0, SITE + 1), inside, sees)


def rest(model: Nano, read: Site, states: Float[Tensor, "token d"]) -> Float[Tensor, "token vocab"]:
    """What the model says at the tokens of all strings, their states at the site being others."""
    x = read.x.masked_scatter(read.inside[..., None], states)
    x = _through(model, x, read.sees, SITE + 1, len(model.blocks))
    return model.unembed(model.norm(x[read.inside]))


def _side_by_side(model: Nano, rows: Rows) -> Float[Tensor, ""]:
    """Mean loss of strings in rows."""
    read, there = read_to_site(model, rows), rows.targets != PAD
    x = _through(model, read.x, read.sees, SITE + 1, len(model.blocks))
    return functional.cross_entropy(model.unembed(model.norm(x[there])), rows.targets[there])


def train_language(arm: LanguageArm, seed: int, steps: int) -> Nano:
    """Train on strings drawn beforehand."""
    language, source = arm.grammar(), random.Random(2_038_074_743 + seed)
    rows = packed([language.draw(source, arm.longest) for _ in range(arm.strings)], arm.longest + 1)
    shape = NanoConfig(
        vocab=language.vocab,
        context=arm.longest + 2,
        width=arm.width,
        heads=arm.heads,
        tied=True,
        deviation=arm.deviation,
    )
    model = Nano(shape, seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=arm.lr, betas=(0.9, arm.beta), fused=True)
    draw = generator(1_299_709 + seed)
    for step in range(steps):
        chosen = torch.randint(0, len(rows.inputs), (arm.batch,), generator=draw)
        optimiser.param_groups[0]["lr"] = arm.lr * min((step + 1) / 100, (steps - step) / steps)
        descend(optimiser, _side_by_side(model, rows.chosen(chosen)), clip=1.0)
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
