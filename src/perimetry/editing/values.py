"""What a matrix should give at an edited key: the value under which a model says the new answer, found by gradient descent."""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from perimetry.config import Config
from perimetry.errors import NonFinite

__all__ = ["BLOCK_VALUE", "LAYER_VALUE", "Objective", "Terms", "ValueConfig", "find_value"]

Value = Float[Tensor, " value"]
Scalar = Float[Tensor, ""]


class Terms(NamedTuple):
    """What is made small, as scalars with a gradient."""

    nll: Scalar
    """Minus the log-probability of the new answer, mean over prefixes, in nats."""
    kl: Scalar
    """How far a neutral prompt about the same subject is moved, KL(before || after) in nats."""


Objective = Callable[[Value], Terms | tuple[Scalar, Scalar]]
"""From what is added to the value to the two terms; how it gets into the model is its own business."""


class ValueConfig(Config):
    """How the value is looked for. The defaults are those of ROME (Meng et al. 2022)."""

    lr: float = Field(default=0.5, gt=0)
    """Learning rate of Adam."""
    steps: int = Field(default=25, ge=0)
    """At most so many steps."""
    enough: float = 0.05
    """The loss, with its penalties, below which it stops, in nats."""
    kl: float = Field(default=0.0625, ge=0)
    """Weight of the KL divergence on a neutral prompt."""
    decay: float = Field(default=1e-3, ge=0)
    """Weight of ||delta|| / ||v0||^2: the first norm is not squared, as released."""
    most: float = Field(default=4.0, gt=0)
    """The longest delta, in lengths of the value before."""


LAYER_VALUE: Final = ValueConfig()
"""For a value of one layer: ROME and its relatives."""
BLOCK_VALUE: Final = ValueConfig(decay=0.5, most=0.75)
"""For the output of a block, over which several layers share an edit: MEMIT and AlphaEdit (Meng et al. 2023, Fang et al. 2025)."""


def find_value(start: Value, objective: Objective, config: ValueConfig = LAYER_VALUE) -> Value:
    """v0 + delta, where delta makes `nll + kl * KL + decay * ||delta|| / ||v0||^2` small and is no longer than `most * ||v0||`.

    Adam from delta = 0, in the dtype and on the device of `start`; with no steps it is v0. Errors: `NonFinite` where the loss is none.

    >>> wanted = torch.tensor([3.0, 4.0])
    >>> near = find_value(torch.tensor([3.0, 3.0]), lambda d: ((d - wanted).square().sum(), 0 * d.sum()), ValueConfig(most=9.0))
    >>> [round(x) for x in (near - torch.tensor([3.0, 3.0])).tolist()]
    [3, 4]
    """
    before = start.detach()
    length = before.norm()
    delta = torch.zeros_like(before, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=config.lr)
    with torch.enable_grad():
        for step in range(config.steps):
            nll, kl = objective(delta)
            loss = nll + config.kl * kl + config.decay * delta.norm() / length.square()
            now = float(loss.detach())
            if not math.isfinite(now):
                raise NonFinite(
                    f"the loss of the edit became {now} at step {step}; use a smaller lr, or another prompt"
                )
            if now < config.enough:
                break
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                delta.mul_((config.most * length / delta.norm().clamp_min(1e-30)).clamp_max(1.0))
    return before + delta.detach()
