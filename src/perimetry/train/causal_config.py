"""What a recipe says of the causal loss."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_serializer

from perimetry.config import Config
from perimetry.runtime import generator

__all__ = ["CausalConfig", "CausalTarget"]

CausalTarget = Literal["logits", "kl"]
"""`logits`: squared difference of logits, averaged over vocabulary and tokens; `kl`: divergence of next-token distributions in
nats, averaged over tokens."""


class CausalConfig(Config):
    """The causal loss of Menon et al. (arXiv 2410.11767): on a straight way between two codes the model moves on a straight way."""

    causal: float = Field(default=0.0, ge=0)
    """Weight of the causal loss, beside the squared error; 0 leaves it out. It wants the model, the text and several passes."""
    causal_ramp: float = Field(default=0.0, ge=0, le=1)
    """Share of the steps in which that weight rises from 0."""
    causal_share: Annotated[float, Field(gt=0, lt=1)] | Literal["uniform"] = 0.2
    """Share of the way to the codes of the nearest other token by which all tokens are moved; `uniform` draws it between 0
    and 1, anew each time."""
    causal_every: int = Field(default=1, ge=1)
    """Steps from one causal loss to the next; those between have none."""
    causal_sequences: int = Field(default=1, ge=1)
    """Sequences of text that it is taken on; all tokens of a sequence are moved at once."""
    causal_target: CausalTarget = "logits"
    """What must move straight: logits, or next-token distributions by their divergence (`kl`)."""

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """A recipe without the loss is described as before there was one, so that trainings and artifacts keep their identity."""
        plain: dict[str, Any] = handler(self)
        return {key: value for key, value in plain.items() if self.causal or key not in CausalConfig.model_fields}

    def causal_share_at(self, turn: int, seed: int) -> float:
        """Share of the way at the causal loss number `turn`, from 0 on.

        >>> CausalConfig(causal_share=0.02).causal_share_at(7, seed=0)
        0.02
        """
        if self.causal_share != "uniform":
            return self.causal_share
        return float(torch.rand((), generator=generator(1_000_003 * (seed + 1) + turn)))
