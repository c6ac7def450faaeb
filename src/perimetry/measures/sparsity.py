"""How many concepts are active, how often each one is, and which never are.

Active means a value different from 0. Codes come as indices and values; slots whose value is 0 are padding.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.axes import PerToken
from perimetry.errors import TooFewSamples

__all__ = ["L0", "dead_share", "density", "fires", "l0", "log_density", "summarise_l0"]

LOG_FLOOR = 1e-10


class L0(NamedTuple):
    """Active concepts per token."""

    mean: float
    """Mean over tokens."""
    median: float
    """Median over tokens."""
    deviation: float
    """Standard deviation over tokens (of the sample, divided by n)."""
    low: float
    """5 % quantile."""
    high: float
    """95 % quantile."""


def l0(values: Float[Tensor, "token k"]) -> PerToken:
    """Active concepts of each token.

    >>> l0(torch.tensor([[2.0, -1.0, 0.0]]))
    tensor([2.])
    """
    return (values != 0).sum(1).to(values.dtype)


def summarise_l0(counts: PerToken) -> L0:
    """Mean, median, spread and quantiles of the active counts. Errors: `TooFewSamples` without a token."""
    if not counts.numel():
        raise TooFewSamples("no token to count concepts of; give one or more")
    x = counts.double()
    low, median, high = torch.quantile(x, torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)).tolist()
    return L0(float(x.mean()), median, float(x.std(correction=0)), low, high)


def fires(indices: Int[Tensor, "token k"], values: Float[Tensor, "token k"], width: int) -> Int[Tensor, " d_sae"]:
    """Tokens at which each concept is active.

    >>> fires(torch.tensor([[1, 0], [1, 2]]), torch.tensor([[3.0, 0.0], [1.0, 1.0]]), 3)
    tensor([0, 2, 1])
    """
    return torch.bincount(indices[values != 0], minlength=width)


def density(counts: Int[Tensor, " d_sae"], tokens: int) -> Float[Tensor, " d_sae"]:
    """Firing rate of each concept, float64, 0 to 1; the rates sum to the mean L0. Errors: `TooFewSamples`."""
    if tokens < 1:
        raise TooFewSamples("firing rates of no token; give one or more")
    return counts.double() / tokens


def log_density(counts: Int[Tensor, " d_sae"], tokens: int) -> Float[Tensor, " d_sae"]:
    """log10 of the firing rate, with 1e-10 added so that a concept that never fires gives -10."""
    return (density(counts, tokens) + LOG_FLOOR).log10()


def dead_share(counts: Int[Tensor, " d_sae"], at_most: int = 0) -> float:
    """Share of concepts that fired `at_most` times or less in the tokens counted; lower is better.

    >>> dead_share(torch.tensor([0, 5, 0, 1]))
    0.5
    """
    dead: Bool[Tensor, " d_sae"] = counts <= at_most
    return float(dead.double().mean())
