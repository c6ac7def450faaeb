"""Dictionaries that are more than their weights: those that normalise each token, and those that only encode.

Assumes of concepts what the dictionary inside does. The active count is free where it is free inside. Both are for reading what
others trained; neither is trained here.
"""

from typing import Any, ClassVar, NoReturn, TypeVar, final

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from typing_extensions import override

from perimetry.axes import Acts
from perimetry.errors import ConfigError, CorruptArtifact, Incompatible
from perimetry.sae import ARCHITECTURES
from perimetry.sae.base import AbstractSAE, Codes, CountMode, SAEOutput, SAEState, Start
from perimetry.sae.formats.record import InputNorm
from perimetry.sae.steps.base import Losses, Objective

__all__ = ["WRAPPERS", "EncoderOnlySAE", "NormalisedSAE", "TokenStatistics", "normalise"]

EPSILON = 1e-5
W = TypeVar("W", bound="_Wrapped")
TokenStatistics = tuple[Tensor, Tensor]
"""Shift and scale of each token: x = z scale + shift on the way out."""


def normalise(acts: Acts, norm: InputNorm) -> tuple[Acts, TokenStatistics]:
    """Normalised tokens, and what undoes it on an output.

    `layer_norm` divides by (standard deviation with n - 1, plus 1e-5) and is undone with the standard deviation alone, as published.

    >>> z, (shift, scale) = normalise(torch.tensor([[3.0, 4.0]]), "constant_norm")
    >>> [round(v, 4) for v in z[0].tolist()], round(float(scale), 4)
    ([0.8485, 1.1314], 3.5355)
    """
    if norm == "layer_norm":
        shift = acts.mean(1, keepdim=True)
        scale = acts.std(1, keepdim=True)
        return (acts - shift) / (scale + EPSILON), (shift, scale)
    if norm == "constant_norm":
        scale = acts.norm(dim=1, keepdim=True) / acts.shape[1] ** 0.5
        # A token of zeros has no direction; it stays zero both ways.
        return acts / torch.where(scale > 0, scale, 1), (torch.zeros_like(scale), scale)
    raise ConfigError(f"normalisation {norm!r}; wanted layer_norm or constant_norm; fold any other into the weights")


class _Wrapped(AbstractSAE):
    """Holds another dictionary; its parameters are those of that one."""

    inner: AbstractSAE

    def __init__(self, inner: AbstractSAE) -> None:
        nn.Module.__init__(self)
        self.inner = inner
        # The count is that of the dictionary inside, known only now.
        self.count_mode: CountMode = inner.count_mode  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def W_dec(self) -> nn.Parameter:  # noqa: N802  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of the dictionary inside."""
        return self.inner.W_dec

    @property
    @override
    def d_model(self) -> int:
        return self.inner.d_model

    @override
    def dense_losses(self, rows: Acts, objective: Objective, dead: Bool[Tensor, " d_sae"]) -> Losses:
        raise Incompatible(
            f"a {self.architecture} dictionary is read, not trained; train a {self.inner.architecture} instead"
        )

    @override
    def fold_scale(self, scale: float) -> None:
        if scale != 1:
            raise Incompatible(
                f"a scale of {scale} for a {self.architecture} dictionary, which has its own units; give it raw activations"
            )

    def more(self) -> dict[str, Any]:
        """Settings beside the dictionary inside."""
        return {}

    @override
    def state(self) -> SAEState:
        inner = self.inner.state()
        return SAEState(inner.tensors, {"inner": self.inner.architecture, "settings": inner.settings, **self.more()})

    @classmethod
    @override
    def fresh(cls: type[W], start: Start) -> W:
        raise ConfigError(
            f"a {cls.architecture} dictionary cannot be trained here; choose an architecture of the table"
        )

    @classmethod
    def inner_of(cls, state: SAEState) -> AbstractSAE:
        """The dictionary inside, from a state. Errors: `CorruptArtifact`."""
        name, settings = state.settings.get("inner"), state.settings.get("settings")
        if name not in ARCHITECTURES or not isinstance(settings, dict):
            raise CorruptArtifact(
                f"a {cls.architecture} dictionary around {name!r}; an architecture of ours is wanted; make it again"
            )
        return ARCHITECTURES[name].restore(SAEState(state.tensors, settings))


@final
class NormalisedSAE(_Wrapped):
    """Reads each token normalised, and undoes that on the output of `forward`; codes alone cannot be decoded."""

    architecture: ClassVar[str] = "normalised"

    def __init__(self, inner: AbstractSAE, norm: InputNorm) -> None:
        super().__init__(inner)
        self.norm: InputNorm = norm

    @override
    def encode(self, acts: Acts) -> Codes:
        self.check_width(acts)
        return self.inner.encode(normalise(acts.to(self.W_dec.dtype), self.norm)[0])

    @override
    def decode(self, codes: Codes) -> NoReturn:
        raise Incompatible(
            f"codes of a dictionary with {self.norm} cannot be decoded alone, their token's scale is not in them; call the SAE on "
            "the activations instead"
        )

    @override
    def forward(self, acts: Acts) -> SAEOutput:
        self.check_width(acts)
        scaled, (shift, scale) = normalise(acts.to(self.W_dec.dtype), self.norm)
        codes, out = self.inner(scaled)
        return SAEOutput(codes, out * scale + shift)

    @override
    def more(self) -> dict[str, Any]:
        return {"norm": self.norm}

    @classmethod
    @override
    def restore(cls, state: SAEState) -> "NormalisedSAE":
        norm = state.settings.get("norm")
        if norm not in ("layer_norm", "constant_norm"):
            raise CorruptArtifact(
                f"a normalised dictionary with norm {norm!r}; layer_norm or constant_norm is wanted; make it again"
            )
        return cls(cls.inner_of(state), norm)

    @classmethod
    @override
    def tiny(cls) -> "NormalisedSAE":
        return cls(ARCHITECTURES["topk"].tiny(), "layer_norm")


@final
class EncoderOnlySAE(_Wrapped):
    """Codes can be read; what its decoder gives is a part of the output only, so that it reconstructs nothing."""

    architecture: ClassVar[str] = "encoder_only"

    @override
    def encode(self, acts: Acts) -> Codes:
        return self.inner.encode(acts)

    def _refuse(self) -> NoReturn:
        raise Incompatible(
            "this dictionary only encodes: its decoder writes to other layers too, so that its output is no reconstruction; use "
            "its codes, or another dictionary"
        )

    @override
    def decode(self, codes: Codes) -> NoReturn:
        self._refuse()

    @override
    def forward(self, acts: Acts) -> NoReturn:
        self._refuse()

    @classmethod
    @override
    def restore(cls, state: SAEState) -> "EncoderOnlySAE":
        return cls(cls.inner_of(state))

    @classmethod
    @override
    def tiny(cls) -> "EncoderOnlySAE":
        return cls(ARCHITECTURES["jumprelu"].tiny())


WRAPPERS: dict[str, type[AbstractSAE]] = {"encoder_only": EncoderOnlySAE, "normalised": NormalisedSAE}
"""Name -> class, for dictionaries that are read and never trained."""
