"""A transformer that learns the tasks, and the three ways to make it refuse; the fourth, on true answers, is the control."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from perimetry.config import Config
from perimetry.labs.descent import descend
from perimetry.labs.nano import Nano, NanoConfig
from perimetry.labs.safety_finetuning.answers import answer_loss
from perimetry.labs.safety_finetuning.grammar import grammar_world
from perimetry.labs.safety_finetuning.world import PAD, Prompts, World, chunk_world
from perimetry.runtime import generator
from perimetry.storage import atomic_file

__all__ = ["RATES", "Method", "Rate", "SafetyArm", "Weights", "finetune", "kept", "pretrain"]

Method = Literal["plain", "ssft", "unlearn", "dpo"]
Rate = Literal["medium", "small"]
RATES: Final[tuple[Rate, ...]] = ("medium", "small")
AHEAD: Final = 16
"""Batches that are drawn at once."""
BETA: Final = 0.1


class Weights(NamedTuple):
    """How much a method weighs the true answer of an unsafe prompt."""

    unlearn: float
    """Of unlearning."""
    dpo: float
    """Of direct preference optimisation."""


WEIGHTS: Final[dict[Rate, Weights]] = {"medium": Weights(0.1, 0.01), "small": Weights(0.01, 0.002)}


class SafetyArm(Config):
    """A world, a model, and how it is trained and fine-tuned."""

    world: Literal["chunks", "grammars"] = "chunks"
    """The small world, or the published one."""
    texts: int = 20_000
    """Texts of each grammar and kind, in the published world."""
    lengths: tuple[int, int] = (15, 25)
    """Least and greatest length of these."""
    copies: int = 2
    """Tasks that have a duplicate, there."""
    context: int = 20
    """Positions of the model."""
    layers: int = 3
    """Blocks."""
    heads: int = 4
    """Attention heads of a block."""
    width: int = 64
    """Width of the residual stream; an MLP is four times as wide."""
    positions: Literal["rotary", "learned"] = "learned"
    """How a token knows where it stands."""
    deviation: float = 0.1
    """Standard deviation of the first weights. At .02, with learned positions, each half of an answer is refused alone."""
    steps: int = 2000
    """Updates of pre-training."""
    batch: int = 64
    """Sequences of an update."""
    lr: float = 2e-3
    """Highest learning rate of pre-training (AdamW; .9, .95)."""
    lowest: float = 0.0
    """The rate that it falls to."""
    warmup: int = 200
    """Updates over which it rises from 0."""
    fall: Literal["linear", "cosine"] = "linear"
    """How it falls after that."""
    begin: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    """Shares of text alone, of both tasks with what comes between, of one task, and of both, at the beginning of pre-training."""
    end: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    """The same at its end; in between they go straight."""
    tuning: int = 600
    """Updates of fine-tuning."""
    tuning_batch: int = 64
    """Prompts of one of these."""
    medium: float = 1e-3
    """The greater learning rate of fine-tuning, which falls straight to 0."""
    small: float = 1e-4
    """The smaller one."""
    safe: float = 0.5
    """Share of safe prompts in fine-tuning."""
    least: float = 0.95
    """Accuracy before fine-tuning below which nothing more is done."""
    device: str = "cpu"
    """Where it is trained: `cpu`, `cuda` ..."""

    def make(self, seed: int) -> World:
        """The world."""
        if self.world == "chunks":
            return chunk_world(seed)
        return grammar_world(seed, self.texts, self.lengths, self.copies)

    def model(self, world: World, seed: int) -> Nano:
        """The transformer before training."""
        shape = NanoConfig(
            vocab=world.vocab,
            context=self.context,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            positions=self.positions,
            deviation=self.deviation,
        )
        return Nano(shape, seed).to(self.device)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of pre-training at a step, as a share of the highest.

        >>> [round(SafetyArm(warmup=10).rate(step, 20), 2) for step in (0, 9, 10, 15)]
        [0.1, 1.0, 1.0, 0.5]
        """
        warm = min(self.warmup, steps // 2)
        if step < warm:
            return (step + 1) / warm
        done = torch.tensor((step - warm) / (steps - warm), dtype=torch.float64)
        shape = 1 - done if self.fall == "linear" else (1 + torch.cos(torch.pi * done)) / 2
        floor = self.lowest / self.lr
        return floor + (1 - floor) * float(shape)

    def mix(self, share: float) -> Float[Tensor, " mode"]:
        """Shares of the four kinds of sequences after this share of pre-training.

        >>> found = SafetyArm(begin=(0.5, 0.1, 0.2, 0.2), end=(0.1, 0.2, 0.3, 0.4)).mix(0.5)
        >>> [round(share, 2) for share in found.tolist()]
        [0.3, 0.15, 0.25, 0.3]
        """
        return torch.lerp(torch.tensor(self.begin), torch.tensor(self.end), share)


def pretrain(arm: SafetyArm, world: World, seed: int, steps: int) -> Nano:
    """Learn to go on with sequences of every kind."""
    model = arm.model(world, seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=arm.lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    draw = generator(735_632_807 + seed)
    for step, rows in enumerate(_sequences(arm, world, steps, draw)):
        ids = rows.to(arm.device)
        optimiser.param_groups[0]["lr"] = arm.lr * arm.rate(step, steps)
        loss = functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD)
        descend(optimiser, loss, clip=1.0)
    return model.eval()


def _sequences(arm: SafetyArm, world: World, steps: int, draw: torch.Generator) -> Iterator[Tensor]:
    for begin in range(0, steps, AHEAD):
        drawn = world.pretraining(AHEAD * arm.batch, draw, arm.mix(begin / steps))
        yield from drawn.split(arm.batch)[: steps - begin]


def kept(arm: SafetyArm, world: World, seed: int, file: Path, make: Callable[[], Nano]) -> Nano:
    """The model that a file holds; where there is none it is made, and kept there for the other arms of this seed."""
    from safetensors.torch import load_file, save_file  # late, as elsewhere

    if file.is_file():
        model = arm.model(world, seed)
        model.load_state_dict(load_file(file))
        return model.eval()
    model = make()
    with atomic_file(file) as temporary:
        save_file({name: one.detach().cpu().contiguous() for name, one in model.state_dict().items()}, temporary)
    return model


def _loss(method: Method, rate: Rate, model: Nano, before: Nano, safe: Prompts, unsafe: Prompts) -> Tensor:
    """Loss on the true answers of safe prompts, and what a method makes of unsafe ones. One pass for all of them is what is fast."""
    wanted = {
        "plain": (unsafe.ids,),
        "ssft": (unsafe.refused(),),
        "unlearn": (unsafe.refused(), unsafe.ids),
        "dpo": (unsafe.refused(), unsafe.ids),
    }[method]
    parts = _losses(model, [(safe.ids, safe), *((ids, unsafe) for ids in wanted)])
    usual, refusal = parts[0].mean(), parts[1]
    if len(parts) == 2:
        return usual + refusal.mean()
    true = parts[2]
    if method == "unlearn":
        return usual + (refusal - WEIGHTS[rate].unlearn * true).mean()
    with torch.no_grad():
        refused_before, true_before = _losses(before, [(ids, unsafe) for ids in wanted])
    margin = BETA * (refused_before - refusal) - WEIGHTS[rate].dpo * (true_before - true)
    return usual - functional.logsigmoid(margin).mean()


def _losses(model: Nano, parts: Sequence[tuple[Tensor, Prompts]]) -> tuple[Tensor, ...]:
    """Loss of each answer of each part."""
    width = max(ids.shape[1] for ids, _ in parts)
    ids = torch.cat([functional.pad(one, (0, width - one.shape[1])) for one, _ in parts])
    whole = answer_loss(model, ids, Prompts(ids, torch.cat([prompts.eot for _, prompts in parts])))
    return whole.split([len(one) for one, _ in parts])


def _batches(world: World, kind: str, size: int, steps: int, draw: torch.Generator) -> Iterator[Prompts]:
    for begin in range(0, steps, AHEAD):
        drawn = world.draw(kind, AHEAD * size, draw)
        for i in range(min(AHEAD, steps - begin)):
            yield drawn.rows(slice(i * size, (i + 1) * size))


def finetune(arm: SafetyArm, world: World, before: Nano, seed: int, method: Method, rate: Rate, steps: int) -> Nano:
    """Fine-tune a copy of the model on safe and unsafe prompts; `before` stays as it is."""
    model = copy.deepcopy(before).train()
    rates: Mapping[Rate, float] = {"medium": arm.medium, "small": arm.small}
    optimiser = torch.optim.AdamW(model.parameters(), lr=rates[rate], weight_decay=1e-4, fused=True)
    safe = round(arm.safe * arm.tuning_batch)
    kinds = (
        _batches(world, kind, size, steps, generator(offset + seed))
        for kind, size, offset in (
            ("safe", safe, 899_809_343),
            ("unsafe", arm.tuning_batch - safe, 899_809_363),
        )
    )
    for step, (good, bad) in enumerate(zip(*kinds, strict=True)):
        optimiser.param_groups[0]["lr"] = rates[rate] * (steps - step) / steps
        descend(optimiser, _loss(method, rate, model, before, good, bad), clip=1.0)
    return model.eval()
