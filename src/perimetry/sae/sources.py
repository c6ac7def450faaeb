"""Several sources of activations side by side in a row, and what a dictionary writes into each."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.axes import Decoder, Rows
from perimetry.sae.steps.by_norm import divisor

__all__ = ["Part", "SourceNorms", "Sources"]


Part = Float[Tensor, "token _"]
"""The columns of one source."""


class SourceNorms(NamedTuple):
    """How strongly each latent writes into each source.

    Norms are in units of the scaled activations that the dictionary was trained on, so that sources of different size compare.
    """

    norms: Float[Tensor, "d_sae source"]
    """Norm of the latent's decoder row in the source."""
    share: Float[Tensor, "d_sae source"]
    """That over the sum of the latent's norms, 0 to 1: 1 where it writes into that source alone, 1 over the number of sources
    where it writes into all alike; 0 everywhere for a latent that writes nothing."""


class Sources(NamedTuple):
    """Where each source lies in a row, and the scale that has been folded into the weights for it."""

    widths: tuple[int, ...]
    """Width of each source, in the order of a row."""
    scales: tuple[float, ...]
    """What raw activations of each source are multiplied with to get those that decoder norms are compared in."""

    @classmethod
    def of(cls, widths: Sequence[int], scales: Sequence[float] | None) -> "Sources":
        """From plain numbers; without scales they are 1."""
        given = (1.0 for _ in widths) if scales is None else scales
        return cls(tuple(int(width) for width in widths), tuple(float(scale) for scale in given))

    def split(self, rows: Rows) -> tuple[Part, ...]:
        """The part of each source."""
        return rows.split(list(self.widths), dim=1)

    def columns(self, values: Sequence[float]) -> Float[Tensor, " row"]:
        """One number a source as one number a column of a row.

        >>> Sources.of((1, 2), None).columns((3.0, 4.0))
        tensor([3., 4., 4.])
        """
        return torch.cat([torch.full((width,), value) for width, value in zip(self.widths, values, strict=True)])

    def scaled(self, factors: Sequence[float]) -> "Sources":
        """The same with further scales folded in."""
        return self._replace(scales=tuple(a * b for a, b in zip(self.scales, factors, strict=True)))

    def norms(self, decoder: Decoder) -> Float[Tensor, "d_sae source"]:
        """Norm of each latent's row in each source, in units of scaled activations, differentiable."""
        # A scale in the weights has divided the rows by it; times the scale they are what training compared.
        parts = [part.norm(dim=1) * scale for part, scale in zip(self.split(decoder), self.scales, strict=True)]
        return torch.stack(parts, dim=1)

    def directions(self, decoder: Decoder) -> Decoder:
        """Gradient of the sum of a latent's norms with respect to its row; 0 where the row is 0 in a source."""
        parts = zip(self.split(decoder), self.scales, strict=True)
        return torch.cat([scale * part / divisor(part.norm(dim=1))[:, None] for part, scale in parts], dim=1)

    def shares(self, decoder: Decoder) -> SourceNorms:
        """How strongly each latent writes into each source."""
        norms = self.norms(decoder)
        return SourceNorms(norms, norms / divisor(norms.sum(1))[:, None])
