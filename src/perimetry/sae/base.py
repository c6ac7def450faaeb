"""What every sparse autoencoder promises: encode to sparse codes, decode, say of its count whether it is free.

Weights are latent-major: row i of `W_enc` reads latent i, row i of `W_dec` is the direction it writes. A loaded SAE
works on raw residual-stream vectors: the training scale is folded into its weights.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from perimetry.axes import Acts, Latents, ModelBias, PerToken, Read, Rows, Written
from perimetry.config import Config
from perimetry.errors import WidthMismatch
from perimetry.sae.steps.base import Losses, Objective

__all__ = [
    "AbstractSAE",
    "AutogradSAE",
    "Codes",
    "CountMode",
    "Defaults",
    "Options",
    "Reads",
    "SAEOutput",
    "SAEState",
    "Start",
]

CountMode = Literal["free", "fixed", "budget"]
"""`free`: the active count may rise under shift; `fixed`: it cannot; `budget`: coupled to the other rows of a batch."""

Reads = Literal["one", "pair", "several"]
"""`one`: the activations at one place, which are read and given back; `pair`: those that are read, then those that shall be
given; `several`: those at several places, all read and all given back."""

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


class Options(Config):
    """What an architecture can be told beside width and k; an architecture with options derives its own."""


class Defaults(NamedTuple):
    """How an architecture is trained where the recipe does not say otherwise."""

    beta1: float = 0.9
    """First moment of Adam."""
    sparsity: float = 0.0
    """Weight of the architecture's own term."""
    sparsity_warmup: float = 0.1
    """Share of the steps in which that weight rises from 0."""
    aux: float = 0.0
    """Weight of the loss that revives dead latents."""
    unit_decoder: bool = True
    """Whether decoder rows are kept at norm 1."""
    bandwidth: float | None = None
    """Window of a straight-through estimate; None is the recipe's."""
    normalise: Literal["rms1", "sqrt_d", "none"] = "rms1"
    """Scale put on the activations, without which the other numbers mean nothing."""


class Start(NamedTuple):
    """What a fresh SAE starts from."""

    centre: ModelBias
    """First `b_dec`: the geometric median of scaled activations; its length is the width of a row of the source."""
    d_sae: int
    """Number of latents."""
    k: int
    """Target of the mean active count."""
    seed: int
    """Seed of the weights."""
    subtract_b_dec: bool | None = None
    """Take `b_dec` off the input; None is the architecture's own default."""
    options: Options = Options()
    """Of the architecture's `options_type`."""


class SAEState(NamedTuple):
    """All that rebuilds an SAE."""

    tensors: dict[str, Tensor]
    """Parameters and buffers by name, latent-major."""
    settings: dict[str, Any]
    """Plain JSON values."""


class AbstractSAE(nn.Module, ABC):
    """A dictionary of concepts for the activations after one block.

    `encode` applies the inference rule. Errors: `WidthMismatch` when the input is not `d_model` wide.
    """

    architecture: ClassVar[str]
    """Name in `ARCHITECTURES`."""
    count_mode: ClassVar[CountMode]
    """Whether the active count is free to rise under shift; a budget architecture with a threshold at inference says
    `free`."""
    defaults: ClassVar[Defaults] = Defaults()
    """How it is trained where the recipe does not say otherwise."""
    options_type: ClassVar[type[Options]] = Options
    """The options that it takes."""
    anneals_k: ClassVar[bool] = False
    """Whether its training follows the count that `Objective` gives for a step."""
    reads: ClassVar[Reads] = "one"
    """What a row of its source holds."""
    in_order: ClassVar[bool] = False
    """Whether the codes of a row depend on the rows before it, so that rows must be consecutive tokens."""

    W_dec: nn.Parameter
    """Decoder directions, one row a latent."""

    @classmethod
    def defaults_for(cls, options: Options) -> Defaults:  # noqa: ARG003
        """`defaults`, save where an option wants others."""
        return cls.defaults

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    @property
    def d_model(self) -> int:
        """Width of the activations it reads and writes."""
        return self.W_dec.shape[1]

    @property
    def row_width(self) -> int:
        """Width of the rows of a source that it trains on: `d_model`, save where a row holds a target too."""
        return self.d_model

    @classmethod
    def row_parts(cls, row_width: int, options: Options) -> tuple[int, ...]:  # noqa: ARG003
        """Widths of the parts of a row that are scaled each by itself. Errors: `ConfigError` for a row that has no such parts."""
        return (row_width,)

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

    def inputs(self, rows: Rows) -> Read:
        """What the encoder reads of the rows of a source: all of them, save where a row holds a target too."""
        return rows

    def targets(self, rows: Rows) -> Written:
        """What the decoder shall give back of the rows of a source: all of them, save where a row holds a target too."""
        return rows

    @abstractmethod
    def dense_losses(self, rows: Acts, objective: Objective, dead: Bool[Tensor, " d_sae"]) -> Losses:
        """Loss terms of a batch of scaled rows by the training rule, with a graph.

        Plain autograd on dense latents, written as the formulas are: the reference that the fast steps are tested with.
        """

    def after_update(self) -> None:
        """Bring parameters back into their range after an optimiser step."""

    def settle(self, acts: Acts, k: int) -> dict[str, Any]:  # noqa: ARG002
        """Fit what inference needs on held-out raw activations, after training; returns what to write down of it."""
        return {}

    @abstractmethod
    def fold_scale(self, scale: float) -> None:
        """Make an SAE trained on `scale * x` read and write x itself; codes stay the same numbers."""

    def fold_scales(self, scales: tuple[float, ...]) -> None:
        """`fold_scale` with one scale for each of the `row_parts`."""
        (scale,) = scales
        self.fold_scale(scale)

    @abstractmethod
    def state(self) -> SAEState:
        """All that rebuilds it, by `restore`."""

    @classmethod
    @abstractmethod
    def restore(cls: type[S], state: SAEState) -> S:
        """The SAE of a `state()`. Errors: `WidthMismatch`, `CorruptArtifact`."""

    @classmethod
    @abstractmethod
    def fresh(cls: type[S], start: Start) -> S:
        """An SAE to train, with seeded weights. Errors: `ConfigError`."""

    @classmethod
    @abstractmethod
    def tiny(cls: type[S]) -> S:
        """A small seeded instance for the contract test (d_model 8, d_sae 32)."""


class AutogradSAE(AbstractSAE):
    """An architecture whose gradients are left to autograd, on losses that are sparse already."""

    @abstractmethod
    def losses(self, rows: Acts, objective: Objective, dead: Bool[Tensor, " d_sae"]) -> Losses:
        """Loss terms of a batch of scaled rows by the training rule, with a graph, written for speed.

        What fires is found without a graph; what follows is computed at the active entries only.
        """
