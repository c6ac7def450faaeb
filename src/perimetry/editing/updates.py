"""What editors of one weight matrix add to it, in closed form and in float64: ROME, r-ROME, MEMIT, AlphaEdit, and a drawn update.

A matrix takes keys to values: `weight` is [value, key], and what is added has its shape. `moments` is the mean of k k' over the keys of
ordinary text, not centred.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.errors import ConfigError
from perimetry.runtime import generator

__all__ = ["Keys", "alphaedit", "cost", "drawn_like", "free_directions", "memit", "rome"]

Weight = Float[Tensor, "value key"]
Moments = Float[Tensor, "key key"]
Key = Float[Tensor, " key"]
Value = Float[Tensor, " value"]
Several = Float[Tensor, "key edit"]
Keys = Literal["mixed", "mean", "plain"]
"""Which keys ROME uses: the mean over prefixes for the direction and the plain prompt for the rest (as released), or one of them
throughout; `mean` is r-ROME (arXiv 2403.07175)."""


def rome(weight: Weight, value: Value, plain: Key, mean: Key, moments: Moments, keys: Keys = "mixed") -> Weight:
    """The update of rank 1 that makes a key give `value` and disturbs ordinary keys least (Meng et al. 2022, eq. 2).

    `plain`: key of the plain prompt; `mean`: mean key over prefixes. With `mixed` it is exact for neither where they differ.
    Errors: `ConfigError` where the keys are orthogonal in the metric of `moments`.
    """
    direction, rest = {"mixed": (mean, plain), "mean": (mean, mean), "plain": (plain, plain)}[keys]
    away = torch.linalg.solve(moments.double(), direction.double())
    overlap = away @ rest.double()
    if float(overlap.abs()) <= 1e-12 * float(away.norm() * rest.double().norm()):
        raise ConfigError(
            "the mean key and the plain one have nothing in common; give prompts that name the same subject"
        )
    residual = value.double() - weight.double() @ rest.double()
    return torch.outer(residual, away / overlap)


def memit(keys: Several, residuals: Float[Tensor, "value edit"], moments: Moments, weight: float) -> Weight:
    """The update that is best for several edits at once, least squares with `weight` on the disturbance of ordinary keys (Meng et al. 2023).

    `residuals`: what is missing at each key.
    """
    k, r = keys.double(), residuals.double()
    return torch.linalg.solve(weight * moments.double() + k @ k.T, k @ r.T).T


def free_directions(moments: Moments, share: float) -> Moments:
    """The projector on directions that ordinary keys hardly use: the smallest eigenvalues, together at most that share of the trace."""
    values, vectors = torch.linalg.eigh(moments.double())
    free = vectors[:, values.clamp_min(0).cumsum(0) <= share * values.clamp_min(0).sum()]
    return free @ free.T


def alphaedit(
    keys: Several,
    residuals: Float[Tensor, "value edit"],
    free: Moments,
    *,
    earlier: Several | None = None,
    ridge: float = 0.1,
) -> Weight:
    """The update that changes nothing outside `free`, and little for keys that were edited before (Fang et al. 2025)."""
    k, r, p = keys.double(), residuals.double(), free.double()
    known = k @ k.T if earlier is None else k @ k.T + earlier.double() @ earlier.double().T
    # The published form, (P K + L)^-1 P b, lies in the range of P: solved there, where the matrix is symmetric.
    inner = p @ known @ p + ridge * torch.eye(len(p), dtype=torch.float64)
    return (p @ torch.linalg.solve(inner, p @ k @ r.T)).T


def drawn_like(update: Weight, seed: int) -> Weight:
    """A drawn matrix of rank 1 with the norm of an update: the control of every edit."""
    draw = generator(seed)
    one, other = (torch.randn(n, generator=draw, dtype=torch.float64) for n in update.shape)
    found = torch.outer(one, other)
    return found / found.norm() * update.double().norm()


def cost(update: Weight, moments: Moments) -> float:
    """Mean squared change of what ordinary keys give."""
    return float((update.double() @ moments.double() * update.double()).sum())
