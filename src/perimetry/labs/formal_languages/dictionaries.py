"""Dictionaries of a model's states, by several losses, and what does not keep its states at all."""

from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.labs.formal_languages.models import Splice
from perimetry.labs.points import Scaled, recipe_of, train_on_points
from perimetry.runtime import generator
from perimetry.sae.topk import TopKSAE
from perimetry.train.recipe import TrainConfig

__all__ = ["COUNTS", "PENALTIES", "RELEASED", "Made", "SAESizes", "controls", "dictionary", "normalised", "spliced"]

COUNTS: Final = (1, 2, 4, 8, 16)
"""Active latents of the TopK dictionaries."""
PENALTIES: Final = (0.3, 3.0)
"""Weights of the L1 term where it is averaged over tokens."""
RELEASED: Final = 1e-3
"""Weight of the L1 term as released: of the sum over the whole batch, beside a squared error averaged over tokens and width."""
States = Float[Tensor, "token d"]


class SAESizes(NamedTuple):
    """Sizes of a dictionary and its training."""

    latents: int
    """Latents."""
    steps: int
    """Updates."""
    batch: int
    """Tokens of an update."""
    lr: float = 3e-3
    """Learning rate of Adam."""


class Made(NamedTuple):
    """A dictionary, and what it puts in the place of a state."""

    sae: Scaled
    """With centre and scale."""
    splice: Splice
    """Its reconstruction."""


def _recipe(sizes: SAESizes, seed: int, *, architecture: str, k: int = 8, sparsity: float = 0.0) -> TrainConfig:
    return recipe_of(
        architecture,
        width=sizes.latents,
        k=k,
        steps=sizes.steps,
        batch=sizes.batch,
        seed=seed,
        lr=sizes.lr,
        sparsity=sparsity if architecture == "standard" else None,
    )


def spliced(made: Scaled) -> Splice:
    """Reconstructions, in the units of the states."""

    def splice(states: States) -> States:
        return made.sae(made.inputs(states)).reconstruction * made.scale + made.centre

    return splice


def dictionary(states: States, sizes: SAESizes, seed: int, *, k: int | None = None, penalty: float = 0.0) -> Made:
    """TopK of `k`, or L1 with a weight `penalty` on the sum of codes of a token beside its squared error, in the units of the states."""
    if k is not None:
        made = train_on_points(states, _recipe(sizes, seed, architecture="topk", k=k))
    else:
        # States are divided by the root of their total variance: the squared error falls by its square, the codes by itself.
        scale = float((states - states.mean(0)).square().sum(1).mean().sqrt())
        made = train_on_points(states, _recipe(sizes, seed, architecture="standard", sparsity=penalty / scale))
    return Made(made, spliced(made))


def normalised(states: States, sizes: SAESizes, seed: int, k: int) -> dict[str, Splice]:
    """A dictionary of states of norm 1: what it says as it is, and times the norm of the state."""

    def unit(x: States) -> States:
        return x / x.norm(dim=1, keepdim=True).clamp_min(1e-12)

    made = train_on_points(unit(states), _recipe(sizes, seed, architecture="topk", k=k))
    inner = spliced(made)
    return {
        "normalised, unscaled": lambda x: inner(unit(x)),
        "normalised, rescaled": lambda x: inner(unit(x)) * x.norm(dim=1, keepdim=True),
    }


def controls(states: States, sizes: SAESizes, seed: int) -> dict[str, Splice]:
    """Mean, nothing, and a dictionary of drawn directions, the codes rescaled to explain as much as they can."""
    mean = states.mean(0)
    drawn = torch.randn(sizes.latents, states.shape[1], generator=generator(seed))
    drawn = drawn / drawn.norm(dim=1, keepdim=True)
    start = train_on_points(states, _recipe(sizes._replace(steps=2), seed, architecture="topk", k=16))
    assert isinstance(start.sae, TopKSAE)
    with torch.no_grad():
        start.sae.W_enc.copy_(drawn)
        start.sae.W_dec.copy_(drawn)
        start.sae.b_enc.zero_()
        start.sae.b_dec.zero_()
        inputs = start.inputs(states[:4096])
        found = start.sae(inputs).reconstruction
        start.sae.W_dec.mul_(float((inputs * found).sum() / found.square().sum().clamp_min(1e-12)))
    return {
        "mean": mean.expand_as,
        "zero": torch.zeros_like,
        "drawn dictionary": spliced(start),
    }
