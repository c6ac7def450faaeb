"""The model of a world, what an edit makes of it, and prompts that are computed anew only from the edited matrix on."""

import copy
import math
from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Linear, functional

from perimetry.axes import TokenIds
from perimetry.config import Config
from perimetry.labs.descent import descend
from perimetry.labs.knowledge_editing.world import CONTEXT, World
from perimetry.labs.nano import Nano, NanoConfig
from perimetry.runtime import generator

__all__ = ["BaseConfig", "Probe", "edited", "keys_at", "louder", "projection", "text_loss", "train_base"]

AHEAD = 16
"""Batches that are drawn at once."""
WARM = 200
"""Steps of the warm-up."""
LAST = 0.1
"""Share of the learning rate at the end."""
ROWS = 2048
"""Prompts of a pass."""
Updates = Mapping[int, Float[Tensor, "value key"]]
"""Block -> what is added to the matrix with which its MLP writes."""


class BaseConfig(Config):
    """One world, one model and its training."""

    entities: int = 64
    """Entities of the world."""
    width: int = 48
    """Width of the residual stream."""
    heads: int = 4
    """Attention heads."""
    batch: int = 64
    """Sequences of a step."""
    steps: int = 3000
    """Training steps."""
    lr: float = 4e-3
    """Learning rate of AdamW: a warm-up, then a cosine down to a tenth."""
    deviation: float = 0.1
    """Standard deviation of the first weights; .02 begins with 1,500 steps in which nothing is learned."""
    relations: float = 0.1
    """Weight of the loss at tokens that are relations, where that at entities is 1; their chances are not to be learned."""


def train_base(config: BaseConfig, world: World, seed: int, steps: int | None = None) -> Nano:
    """Train on fresh sequences; the vocabulary has one token more, which is never seen. `steps`: fewer than the configuration has."""
    total = config.steps if steps is None else steps
    shape = NanoConfig(
        vocab=world.vocab + 1,
        context=CONTEXT,
        width=config.width,
        heads=config.heads,
        positions="learned",
        deviation=config.deviation,
    )
    model = Nano(shape, seed)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=config.lr, fused=True)
    draw = generator(49_979_687 + seed)
    drawn = torch.empty(0)
    for step in range(total):
        if step % AHEAD == 0:
            # One token more than the model has positions: all of them are trained.
            drawn = world.draw(AHEAD * config.batch, draw, CONTEXT + 1)
        done = max(0.0, (step - WARM) / max(1, total - WARM))
        falling = LAST + (1 - LAST) * (1 + math.cos(math.pi * done)) / 2
        for group in optimiser.param_groups:
            group["lr"] = config.lr * min((step + 1) / WARM, falling)
        descend(optimiser, _loss(model, drawn[step % AHEAD :: AHEAD], config))
    return model.eval().requires_grad_(requires_grad=False)


def _loss(model: Nano, ids: TokenIds, config: BaseConfig) -> Float[Tensor, ""]:
    """Next-token loss; which relation comes next is chance, and weighs less than where it leads."""
    right = ids[:, 1:].flatten()
    each = functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), right, reduction="none")
    weight = torch.where(right < config.entities, 1.0, config.relations)
    return (each * weight).sum() / weight.sum()


def projection(model: Nano, block: int) -> Linear:
    """The matrix with which the MLP of a block writes: [value, key], and a bias."""
    found = model.blocks[block].down
    assert isinstance(found, Linear)
    return found


def edited(model: Nano, updates: Updates) -> Nano:
    """A copy with edited matrices, summed in float64; the model itself stays as it is. What is not edited is shared with it."""
    places = [f"blocks.{block}.down" for block in updates]
    apart = {name for place in places for name in ("", "blocks", place.rpartition(".")[0], place)}
    made = copy.deepcopy(model, {id(m): m for name, m in model.named_modules() if name not in apart})
    for block, update in updates.items():
        weight = projection(made, block).weight
        weight.copy_((weight.double() + update).to(weight.dtype))
    return made


@torch.no_grad()
def louder(model: Nano, times: float) -> Nano:
    """A copy in which all that is written to the residual stream is so many times as large. Norms take that out again before anything
    reads it: states are `times` as large, and what the model says is the same (control)."""
    made = copy.deepcopy(model)
    for name, parameter in made.named_parameters():
        if name.startswith(("embed.", "place.")) or ".out." in name or ".down." in name:
            parameter.mul_(times)
    return made


@torch.no_grad()
def _before(model: Nano, block: int, ids: TokenIds) -> tuple[Tensor, Tensor]:
    """Keys of a block, and its output less what they write, at each token."""
    place, keys = projection(model, block), []
    hook = place.register_forward_pre_hook(lambda _, inputs: keys.append(inputs[0]))
    try:
        output = model.read(ids, (block,)).residuals[block]
    finally:
        hook.remove()
    return keys[0], output - place(keys[0])


@torch.no_grad()
def keys_at(
    model: Nano, block: int, ids: TokenIds, at: Int[Tensor, " prompt"] | None = None
) -> Float[Tensor, "prompt key"]:
    """What the edited matrix of a block reads at a position of each prompt; without `at`, at every token of it in turn."""
    keys = torch.cat([_before(model, block, some)[0] for some in ids.split(ROWS)])
    return keys.flatten(0, 1) if at is None else keys[torch.arange(len(ids)), at]


@final
class Probe:
    """Prompts up to the matrix of a block; what comes after is computed anew for each edit. Later blocks may be edited too."""

    def __init__(self, model: Nano, block: int, ids: TokenIds, at: Int[Tensor, " prompt"] | None = None) -> None:
        """`at`: the position that is asked about; None: every one."""
        self.model, self.block, self.at, self.last = model, block, at, len(model.blocks) - 1
        keys, rest = zip(*(_before(model, block, some) for some in ids.split(ROWS)), strict=True)
        self.keys, self.rest = torch.cat(keys), torch.cat(rest)
        self._early = block == self.last and at is not None
        if self._early:
            # Behind the last matrix no token reads another.
            self.keys, self.rest = (self._chosen(x) for x in (self.keys, self.rest))

    def _chosen(self, x: Tensor) -> Tensor:
        return x if self.at is None else x[torch.arange(len(x)), self.at]

    @torch.no_grad()
    def states(self, model: Nano | None = None, block: int | None = None) -> Float[Tensor, "prompt *seq d_model"]:
        """Output of a block (None: the last) by an edited copy (None: the model itself), at the positions asked about."""
        own, end = model or self.model, self.last if block is None else block
        x = self.rest + projection(own, self.block)(self.keys)
        for later in own.blocks[self.block + 1 : end + 1]:
            x = torch.cat([later(some, None) for some in x.split(ROWS)])
        return x if self._early else self._chosen(x)

    @torch.no_grad()
    def logits(self, model: Nano | None = None) -> Float[Tensor, "prompt *seq vocab"]:
        """Scores of the next token there."""
        own = model or self.model
        return own.unembed(own.norm(self.states(model)))

    def chances(self, model: Nano | None, right: Int[Tensor, " prompt"], entities: int) -> Float[Tensor, " prompt"]:
        """Chance of the right entity among entities: relations compete with them in the whole vocabulary, and that is another question."""
        return self.logits(model)[:, :entities].softmax(-1).gather(1, right[:, None])[:, 0]


@torch.no_grad()
def text_loss(probe: Probe, model: Nano | None, ids: TokenIds) -> float:
    """Mean next-token loss of whole sequences, in nats."""
    logits = probe.logits(model)[:, :-1]
    return float(functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))
