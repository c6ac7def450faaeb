"""What every sparse autoencoder promises: encode to sparse codes, decode, say of its count whether it is free.

Weights are latent-major: row i of `W_enc` reads latent i, row i of `W_dec` is the direction it writes. A loaded SAE
works on raw residual-stream vectors: the training scale is folded into its weights.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple, TypeVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from perimetry.axes import Acts, Latents, PerToken
from perimetry.errors import WidthMismatch

__all__ = ["AbstractSAE", "Codes", "CountMode", "SAEOutput"]

CountMode = Literal["free", "fixed", "budget"]
"""`free`: the active count may rise under shift; `fixed`: it cannot; `budget`: coupled to the other rows of a batch."""

S = TypeVar("S", bound="AbstractSAE")


class Codes(NamedTuple):
    """The active concepts of some tokens, sparse.

    Slots beyond a token's active count hold index 0 and value 0. "Active" means a value different from zero, never
    "was selected".
    """

    indices: Int[Tensor, "token k"]
    """Latent of each slot, int64."""
    values: Float[Tensor, "token k"]
    """Activation of each slot; 0 is padding."""
    width: int
    """Number of latents of the dictionary."""

    def count(self) -> PerToken:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Active concepts per token (L0).

        >>> import torch
        >>> Codes(torch.tensor([[3, 1, 0]]), torch.tensor([[2.0, 1.0, 0.0]]), 8).count()
        tensor([2.])
        """
        return (self.values != 0).sum(1).to(self.values.dtype)

    def dense(self) -> Latents:
        """The dense latents; for tests and small widths."""
        out = self.values.new_zeros(self.values.shape[0], self.width)
        return out.scatter_add_(1, self.indices, self.values)

    def select(self, rows: Tensor) -> "Codes":
        """The codes of some tokens, by index or mask."""
        return Codes(self.indices[rows], self.values[rows], self.width)


class SAEOutput(NamedTuple):
    """What one pass through an SAE gives."""

    codes: Codes
    """Active concepts, by the inference rule."""
    reconstruction: Acts
    """Decoded activations, in the units of the input."""


class AbstractSAE(nn.Module, ABC):
    """A dictionary of concepts for the activations after one block.

    `encode` applies the inference rule. Errors: `WidthMismatch` when the input is not `d_model` wide.
    """

    architecture: ClassVar[str]
    """Name in `ARCHITECTURES`."""
    count_mode: ClassVar[CountMode]
    """Whether the active count is free to rise under shift; a budget architecture with a threshold at inference says
    `free`."""

    W_enc: nn.Parameter
    W_dec: nn.Parameter
    b_enc: nn.Parameter
    b_dec: nn.Parameter

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    @property
    def d_model(self) -> int:
        """Width of the activations it reads and writes."""
        return self.W_dec.shape[1]

    def check_width(self, acts: Tensor, where: str = "the input") -> None:
        """Raise `WidthMismatch` unless `acts` is `d_model` wide."""
        if acts.shape[-1] != self.d_model:
            raise WidthMismatch(
                f"the SAE reads width {self.d_model} but {where} gives {acts.shape[-1]}; pick another layer, another "
                "model, or another SAE"
            )

    @abstractmethod
    def encode(self, acts: Acts) -> Codes:
        """Active concepts of each token by the inference rule, strongest first."""

    @abstractmethod
    def decode(self, codes: Codes) -> Acts:
        """Activations from concepts: sum of value times decoder row, plus `b_dec`."""

    def forward(self, acts: Acts) -> SAEOutput:
        """Encode and decode."""
        codes = self.encode(acts)
        return SAEOutput(codes, self.decode(codes))

    @classmethod
    @abstractmethod
    def tiny(cls: type[S]) -> S:
        """A small seeded instance for the contract test (d_model 8, d_sae 32)."""
