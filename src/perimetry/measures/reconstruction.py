"""How much of the activations a reconstruction explains. Pure functions; sums are kept in float64."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.axes import Acts
from perimetry.errors import TooFewSamples

__all__ = ["ReconstructionSums", "Shrinkage", "explained_variance", "explained_variance_token_mean", "fvu", "shrinkage"]


class Shrinkage(NamedTuple):
    """How far a reconstruction falls short in length; 1 is none, below 1 is too short."""

    norm_ratio: float
    """Mean of |reconstruction| / |x| over the tokens that are not zero."""
    gamma: float
    """Mean |reconstruction|^2 over mean <x, reconstruction>; 1 where the reconstruction is a projection."""


class ReconstructionSums(NamedTuple):
    """Sums over tokens from which the measures follow; batches are added in any order and size.

    The mean is taken off by a fixed first guess (the mean of the first batch), so that activations with a large mean
    lose no digits.
    """

    tokens: int
    """Tokens seen."""
    shift: Float[Tensor, " d_model"]
    """The first guess of the mean."""
    first: Float[Tensor, " d_model"]
    """Sum of x - shift."""
    second: float
    """Sum of |x - shift|^2."""
    error: float
    """Sum of |x - reconstruction|^2."""
    norm_ratio: float
    """Sum of |reconstruction| / |x| over tokens that are not zero."""
    nonzero: int
    """Tokens whose x is not zero."""
    norm_sq: float
    """Sum of |reconstruction|^2."""
    inner: float
    """Sum of <x, reconstruction>."""

    @classmethod
    def start(cls, acts: Acts) -> "ReconstructionSums":
        """Empty sums, with the mean of `acts` as the first guess."""
        shift = acts.double().mean(0)
        return cls(0, shift, torch.zeros_like(shift), 0.0, 0.0, 0.0, 0, 0.0, 0.0)

    def add(self, acts: Acts, reconstruction: Acts) -> "ReconstructionSums":
        """The sums with one more batch."""
        x, y = acts.double(), reconstruction.double()
        centred = x - self.shift
        lengths = x.norm(dim=1)
        there = lengths > 0
        return ReconstructionSums(
            self.tokens + x.shape[0],
            self.shift,
            self.first + centred.sum(0),
            self.second + float(centred.square().sum()),
            self.error + float((x - y).square().sum()),
            self.norm_ratio + float((y.norm(dim=1)[there] / lengths[there]).sum()),
            self.nonzero + int(there.sum()),
            self.norm_sq + float(y.square().sum()),
            self.inner + float((x * y).sum()),
        )

    def merge(self, other: "ReconstructionSums") -> "ReconstructionSums":
        """The sums of both; `other` may have another first guess."""
        moved = other.shift - self.shift
        first = other.first + other.tokens * moved
        second = other.second + 2 * float(other.first @ moved) + other.tokens * float(moved @ moved)
        return ReconstructionSums(
            self.tokens + other.tokens,
            self.shift,
            self.first + first,
            self.second + second,
            self.error + other.error,
            self.norm_ratio + other.norm_ratio,
            self.nonzero + other.nonzero,
            self.norm_sq + other.norm_sq,
            self.inner + other.inner,
        )

    def fvu(self) -> float:
        """Fraction of variance unexplained: squared error over squared distance to the mean; 0 is perfect, the mean
        alone gives 1.

        Errors: `TooFewSamples` when the tokens do not vary.
        """
        variance = self.second - float(self.first @ self.first) / max(1, self.tokens)
        if self.tokens < 2 or variance <= 0:
            raise TooFewSamples(
                f"{self.tokens} tokens without variance cannot tell how much is explained; give two or more that differ"
            )
        return self.error / variance

    def explained_variance(self) -> float:
        """1 - FVU; 1 is perfect, the mean alone gives 0, worse than the mean is negative."""
        return 1 - self.fvu()

    def mse(self) -> float:
        """Mean over tokens of the squared error, summed over features."""
        return self.error / max(1, self.tokens)

    def shrinkage(self) -> Shrinkage:
        """Length of the reconstructions relative to the activations. Errors: `TooFewSamples` when all are zero."""
        if not self.nonzero:
            raise TooFewSamples("every activation is zero, lengths cannot be compared; give activations of a model")
        gamma = self.norm_sq / self.inner if self.inner != 0 else float(self.norm_sq != 0)
        return Shrinkage(self.norm_ratio / self.nonzero, gamma)


def _sums(acts: Acts, reconstruction: Acts) -> ReconstructionSums:
    return ReconstructionSums.start(acts).add(acts, reconstruction)


def fvu(acts: Acts, reconstruction: Acts) -> float:
    """Fraction of variance unexplained, lower is better.

    >>> fvu(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0]]))
    1.0
    """
    return _sums(acts, reconstruction).fvu()


def explained_variance(acts: Acts, reconstruction: Acts) -> float:
    """1 - FVU, higher is better.

    >>> explained_variance(torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [2.0]]))
    1.0
    """
    return _sums(acts, reconstruction).explained_variance()


def explained_variance_token_mean(acts: Acts, reconstruction: Acts) -> float:
    """Mean over tokens of 1 - |x - reconstruction|^2 / |x - mean|^2: an older definition, for comparison with published
    numbers only; tokens that equal the mean are left out."""
    x, y = acts.double(), reconstruction.double()
    around = (x - x.mean(0)).square().sum(1)
    there = around > 0
    if not bool(there.any()):
        raise TooFewSamples("tokens without variance cannot tell how much is explained; give two or more that differ")
    return float((1 - (x - y).square().sum(1)[there] / around[there]).mean())


def shrinkage(acts: Acts, reconstruction: Acts) -> Shrinkage:
    """Length of the reconstructions relative to the activations.

    >>> shrinkage(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    Shrinkage(norm_ratio=0.5, gamma=0.5)
    """
    return _sums(acts, reconstruction).shrinkage()
