"""What a recipe can ask of the weights beside the loss of the architecture: orthogonal, aligned or frozen rows."""

from typing import final

import torch
from torch import Tensor

from perimetry.errors import ConfigError, WidthMismatch
from perimetry.sae.affine import AffineSAE
from perimetry.sae.base import AbstractSAE
from perimetry.sae.terms.aligned import align, through_alignment
from perimetry.sae.terms.frozen import freeze, hold_near
from perimetry.sae.terms.ortho import chunks_of, ortho_term
from perimetry.train.recipe import TrainConfig

__all__ = ["Constraints"]


@final
class Constraints:
    """The terms and constraints of one training; `of` gives None where the recipe asks for none."""

    def __init__(self, config: TrainConfig, sae: AffineSAE) -> None:
        self.config = config
        self.initial = sae.W_dec.detach().clone() if config.frozen == "soft_decoder" else None

    @classmethod
    def of(cls, config: TrainConfig, sae: AbstractSAE) -> "Constraints | None":
        """Those of a fresh SAE. Errors: `ConfigError`, `WidthMismatch` where the architecture cannot have them."""
        if not (config.ortho or config.aligned or config.frozen != "none"):
            return None
        if not isinstance(sae, AffineSAE):
            raise ConfigError(
                f"ortho, aligned and frozen act on an encoder and a decoder matrix, {sae.architecture} has others; leave "
                "them out"
            )
        if config.aligned and sae.W_enc.shape != sae.W_dec.shape:
            raise WidthMismatch(
                f"aligned wants encoder and decoder of one width, these have {sae.W_enc.shape[1]} and {sae.W_dec.shape[1]}; "
                "leave it out"
            )
        return cls(config, sae)

    @torch.no_grad()
    def on_gradients(self, sae: AbstractSAE, gradients: dict[str, Tensor], step: int) -> float:
        """Add the terms and take out what must not move, in place; gives the weighted terms' value."""
        assert isinstance(sae, AffineSAE), "checked when it was made"
        config, loss = self.config, 0.0
        if config.ortho:
            chunks = chunks_of(sae.d_sae, config.ortho_chunk, config.seed, step)
            term = ortho_term(sae.W_dec.detach(), config.ortho, chunks)
            gradients["W_dec"] = gradients["W_dec"] + term.gradient
            loss = term.loss
        if config.aligned:
            through_alignment(gradients, sae.W_enc.detach(), sae.W_dec.detach())
        freeze(gradients, config.frozen)
        return loss

    @torch.no_grad()
    def on_weights(self, sae: AbstractSAE) -> None:
        """Bring the weights back to where the constraints hold, after an update."""
        assert isinstance(sae, AffineSAE), "checked when it was made"
        if self.initial is not None:
            hold_near(sae.W_dec, self.initial, self.config.soft_cosine)
        if self.config.aligned:
            align(sae.W_enc, sae.W_dec)
