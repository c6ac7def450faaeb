"""A small transformer trained on sequences of the mixture, fresh ones at every step, looked at on a logarithmic scale of steps."""

import math
from collections.abc import Iterator

import torch

from perimetry.axes import TokenIds
from perimetry.config import Config
from perimetry.labs.descent import descend
from perimetry.labs.markov_mixture.world import Mixture, Prior
from perimetry.labs.nano import Nano, NanoConfig
from perimetry.runtime import generator

__all__ = ["MarkovArm", "looks", "train_states"]

AHEAD = 16
"""Batches that are drawn at once."""


class MarkovArm(Config):
    """One mixture and one training."""

    chains: int
    """Chains of the mixture."""
    steps: int
    """Steps."""
    states: int = 5
    """States of a chain."""
    length: int = 100
    """States of a sequence."""
    width: int = 32
    """Width of the residual stream."""
    heads: int = 2
    """Attention heads."""
    vocab: int | None = None
    """Tokens of the model; None: the states."""
    positions: str = "rotary"
    """Or `learned`."""
    tied: bool = False
    """Whether the unembedding is the embedding."""
    batch: int = 64
    """Sequences of a step."""
    lr: float = 1e-3
    """Learning rate of AdamW, constant."""
    deviation: float = 0.02
    """Standard deviation of the first weights."""
    prior: Prior = "drawn"
    """Prior of the chains."""
    published: bool = False
    """Whether the chains are those of the published runs."""

    def mixture(self, seed: int) -> Mixture:
        """The chains."""
        return Mixture(self.chains, self.states, seed, prior=self.prior, published=self.published)

    def model(self, seed: int) -> Nano:
        """The transformer before training."""
        shape = {
            "vocab": self.vocab or self.states,
            "context": self.length,
            "width": self.width,
            "heads": self.heads,
            "positions": self.positions,
            "tied": self.tied,
            "deviation": self.deviation,
        }
        return Nano(NanoConfig.model_validate(shape), seed)


def looks(steps: int, n: int, first: int = 30) -> list[int]:
    """At most n steps, evenly on a logarithmic scale, the last one too.

    >>> looks(1000, 4, 1)
    [1, 10, 100, 1000]
    """
    first = min(first, steps)
    if n < 2 or first == steps:
        return [steps]
    rate = math.log(steps / first) / (n - 1)
    return sorted({round(first * math.exp(rate * i)) for i in range(n)})


def train_states(arm: MarkovArm, mixture: Mixture, seed: int, stops: list[int]) -> Iterator[tuple[int, Nano]]:
    """Train, and hand out the model at each of the steps in `stops`; it goes on from there. AdamW (.9, .95), decay .1."""
    model = arm.model(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=arm.lr, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    wanted = set(stops)
    for step, ids in enumerate(_batches(arm, mixture, seed, max(stops)), 1):
        descend(optimiser, model.loss(ids))
        if step in wanted:
            model.eval()
            yield step, model
            model.train()


def _batches(arm: MarkovArm, mixture: Mixture, seed: int, steps: int) -> Iterator[TokenIds]:
    """Batches of fresh sequences, drawn several at a time: states come one after the other, and that costs as much for one batch."""
    draw = generator(7919 + seed)
    for begin in range(0, steps, AHEAD):
        yield from mixture.known(AHEAD * arm.batch, arm.length, draw).ids.split(arm.batch)[: steps - begin]
