"""What a model is looked at by, before and after an edit: rings of words, facts, ordinary text, the concepts of a meter."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field, field_validator
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.prompts import collate
from perimetry.activations.tap import Tap, read_layers
from perimetry.activations.text import PackedRow
from perimetry.axes import PerPrompt
from perimetry.config import Config
from perimetry.editing.passes import answer_logs
from perimetry.editing.requests import keyed_row
from perimetry.editing.rings import LEAST_ORDER, LEAST_WORDS, cyclic_distances, ring_distances, ring_order
from perimetry.errors import ConfigError
from perimetry.shift.meter import Meter

__all__ = [
    "Concepts",
    "Fact",
    "Ring",
    "UsableRing",
    "concepts_of",
    "fact_chances",
    "nll_of_rows",
    "read_ring",
    "ring_layers",
    "rotated",
    "usable_ring",
]

DEPTHS: Final = (0.4, 0.6, 0.8)
"""Where rings are read, as shares of the blocks: after blocks 11, 17 and 23 of 30."""


class Ring(Config):
    """Words in a cyclic order that everybody knows, and neutral sentences that they stand in."""

    name: str
    """What it is called."""
    words: tuple[str, ...] = Field(min_length=LEAST_WORDS)
    """In order; the first follows the last."""
    sentences: tuple[str, ...] = ("It was about {}", "They spoke of {}", "The story tells of {}")
    """With {} where a word stands; what follows it is not read."""

    @field_validator("sentences")
    @classmethod
    def _slots(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or any(s.count("{}") != 1 for s in value):
            raise ValueError("give one sentence or more, each with {} once, where the word stands")
        return value

    @field_validator("words")
    @classmethod
    def _apart(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value) or not all(w.strip() for w in value):
            raise ValueError("name each word once, none of them empty")
        return value


class Fact(Config):
    """A question with its right answer."""

    prompt: str = Field(min_length=1)
    """Up to the answer."""
    answer: str = Field(min_length=1)
    """What is right."""
    subject: str = ""
    """What it is about: an edit of the same subject does not count it as a sibling."""


def ring_layers(lm: LanguageModel, lowest: int) -> list[int]:
    """The blocks after which rings are read: of those that an edit of block `lowest` can reach.

    >>> from perimetry.activations.model import tiny_language_model
    >>> ring_layers(tiny_language_model(), 1)
    [1]
    """
    found = sorted({max(0, round(depth * lm.n_layers) - 1) for depth in DEPTHS})
    return [layer for layer in found if layer >= lowest] or [lm.n_layers - 1]


@torch.no_grad()
def read_ring(
    lm: LanguageModel, ring: Ring, layers: Sequence[int], *, bos: bool = False
) -> Float[Tensor, "layer word word"]:
    """Distances between the words at each layer: of their last token's state, mean over sentences."""
    rows = [keyed_row(lm, s, w, bos=bos) for s in ring.sentences for w in ring.words]
    batch = collate(rows, lm.pad_id)
    found = read_layers(lm, layers, batch.ids, batch.attention)
    at = torch.tensor([row.key for row in rows])
    out: list[Tensor] = []
    for layer in layers:
        states = found[layer][torch.arange(len(rows)), at].double().cpu()
        out.append(ring_distances(states.view(len(ring.sentences), len(ring.words), -1).mean(0)))
    return torch.stack(out)


class UsableRing(NamedTuple):
    """What a ring is worth as a probe of a model."""

    layers: tuple[int, ...]
    """The layers at which its words stand in order; none where it is refused."""
    orders: tuple[float, ...]
    """Rank correlation with cyclic order at every layer that was asked about."""
    refusal: str
    """Why it says nothing of an edit; empty where it does."""


def usable_ring(lm: LanguageModel, ring: Ring, layers: Sequence[int], *, bos: bool = False) -> UsableRing:
    """At which layers the unedited model holds the words in their order (rank correlation of at least .5)."""
    cyclic = cyclic_distances(torch.arange(len(ring.words)))
    orders = tuple(ring_order(d, cyclic) for d in read_ring(lm, ring, layers, bos=bos))
    kept = tuple(layer for layer, order in zip(layers, orders, strict=True) if order >= LEAST_ORDER)
    told = ", ".join(f"{order:.2f} after block {layer}" for layer, order in zip(layers, orders, strict=True))
    why = f"the model does not hold these words in order: rank correlation {told}; {LEAST_ORDER:g} is wanted"
    return UsableRing(kept, orders, "" if kept else why)


def rotated(words: Sequence[str], word: str, steps: int) -> str:
    """The word so many steps further round the ring. Errors: `ConfigError` for a word that is not in it.

    >>> rotated(["north", "east", "south", "west"], "west", 2)
    'east'
    """
    if word not in words:
        raise ConfigError(f"{word!r} is not in the ring of {', '.join(words)}; give one of its words")
    return words[(list(words).index(word) + steps) % len(words)]


def fact_chances(lm: LanguageModel, facts: Sequence[Fact], *, bos: bool = False) -> PerPrompt:
    """Probability of the right answer to each."""
    rows = [keyed_row(lm, "{}" + fact.prompt[1:], fact.prompt[:1], answer=fact.answer, bos=bos) for fact in facts]
    return answer_logs(lm, rows).double().exp()


def nll_of_rows(lm: LanguageModel, rows: Sequence[PackedRow], *, batch: int = 4) -> PerPrompt:
    """Mean negative log-likelihood a token of each packed row, in nats, the first position left out."""
    tap, out = Tap(lm, lm.n_layers - 1), list[Tensor]()
    for start in range(0, len(rows), batch):
        made = collate(rows[start : start + batch], lm.pad_id)
        mask = made.countable.clone()
        mask[:, 0] = False
        full = tap.read_with_logits(made.ids, made.attention)
        nll = full.logit_stats(made.ids, made.attention, mask).nll.double().cpu()
        owner, counts = mask.nonzero()[:, 0], mask.sum(1)
        out.append(torch.zeros(len(mask), dtype=torch.float64).index_add(0, owner, nll) / counts)
    return torch.cat(out)


class Concepts(NamedTuple):
    """What a meter sees in some texts."""

    scores: PerPrompt
    """Its main score of each text; higher = further from what is normal."""
    active: Int[Tensor, " active"]
    """Which concept fires at which token, as token * width + concept."""
    tokens: Int[Tensor, " token"]
    """Which tokens count, as text * context + position."""
    width: int
    """Concepts of the dictionary."""

    def changed(self, other: "Concepts") -> float:
        """Mean, over tokens that count in both, of the share of their concepts that fire in one only; 0 = the same ones, 1 = none."""
        both = self.tokens[torch.isin(self.tokens, other.tokens)]
        mine, theirs = (a[torch.isin(a // self.width, both)] for a in (self.active, other.active))
        common = mine[torch.isin(mine, theirs)]
        index = torch.searchsorted(both, torch.cat([mine, theirs]) // self.width)
        either = torch.bincount(index, minlength=len(both))
        shared = torch.bincount(torch.searchsorted(both, common // self.width), minlength=len(both))
        union = either - shared
        seen = union > 0
        return float((1 - shared[seen] / union[seen]).mean()) if bool(seen.any()) else 0.0


@torch.no_grad()
def concepts_of(meter: Meter, texts: Sequence[str]) -> Concepts:
    """Scores and active concepts of texts; those that are too long are read from their beginning."""
    names = [str(i) for i in range(len(texts))]
    scores = [r.score for r in meter.score(texts, truncate=True, explain=False)]
    active: list[Tensor] = []
    tokens: list[Tensor] = []
    for capture in meter.extractor.capture(meter.extractor.prepare(names, texts, truncate=True), logits=False):
        codes = capture.evidence(meter.sae).codes
        own = torch.tensor(capture.rows)[capture.prompt] * meter.lm.context + capture.positions
        fires = codes.values != 0
        active.append((own[:, None] * codes.width + codes.indices)[fires])
        tokens.append(own)
    return Concepts(
        torch.tensor(scores, dtype=torch.float64), torch.cat(active), torch.cat(tokens).sort().values, meter.sae.d_sae
    )
