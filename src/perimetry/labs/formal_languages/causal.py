"""The causal loss: half way between two latent vectors, the model shall say what lies half way between what it says of each.

Public arXiv 2410.11767. It wants a function from latents to what comes out of the model, and so works on any.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Interpolation", "interpolated", "nearest_others"]

Dense = Float[Tensor, "token latent"]


class Interpolation(NamedTuple):
    """How far what is said between two points is from what lies between what is said of them."""

    error: Float[Tensor, ""]
    """Mean squared distance over tokens and outputs."""
    size: Float[Tensor, ""]
    """Mean squared size of the whole change, by which the error is relative."""


@torch.no_grad()
def nearest_others(latents: Dense, *, chunk: int = 1024) -> Int[Tensor, " token"]:
    """The other token whose latents are nearest, of each."""
    found: list[Tensor] = []
    for begin in range(0, len(latents), chunk):
        away = torch.cdist(latents[begin : begin + chunk], latents)
        rows = torch.arange(len(away))
        away[rows, begin + rows] = torch.inf
        found.append(away.argmin(1))
    return torch.cat(found)


def interpolated(latents: Dense, says: Callable[[Dense], Float[Tensor, "token output"]], share: float) -> Interpolation:
    """Move every token by a share of the way to the nearest other. `says`: what comes out of the model for such latents, all tokens of
    a sequence being moved at once."""
    other = latents[nearest_others(latents)]
    here, there = says(latents), says(other)
    between = says(latents + share * (other - latents))
    error = (between - ((1 - share) * here + share * there)).square().mean()
    return Interpolation(error, (share * (there - here)).square().mean())
