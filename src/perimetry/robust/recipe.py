"""How a model is tuned: which terms, which parameters, how long, and when to stop."""

from typing import Literal

from pydantic import Field, model_validator

from perimetry.config import Config

__all__ = ["TERMS", "Method", "Pull", "TuneConfig", "Weights"]

Method = Literal["lora", "full"]
Pull = Literal["energy", "concepts", "residual"]
"""What the shift term pulls on (`shifted`)."""

TERMS: dict[str, str] = {
    "clean": "next-token loss on the clean text, in nats a token",
    "perturbed": "next-token loss on the corrupted text, in nats a token",
    "consistency": "KL(p(.|clean) || p(.|corrupted)) at the ends of words, in nats",
    "alignment": "squared distance at the tap between the corrupted text as tuned and the clean text as before, at the ends of words",
    "shift": "shift of the corrupted text at the tap, 1 = that of clean text before tuning",
    "retain": "squared distance at the tap between tuned and untuned model on clean text",
}
"""The terms of the loss by name. Squared distances are shares of the squared norm of the untuned model, token by token."""


class Weights(Config):
    """Weight of each term of `TERMS`; 0 leaves it out, and the passes that only it needs."""

    clean: float = Field(default=1.0, ge=0)
    """Next-token loss on clean text."""
    perturbed: float = Field(default=1.0, ge=0)
    """Next-token loss on corrupted text."""
    consistency: float = Field(default=0.0, ge=0)
    """Next-token distributions on corrupted text near those on clean text, which are held fixed."""
    alignment: float = Field(default=0.0, ge=0)
    """Activations at the tap on corrupted text near those of the untuned model on clean text."""
    shift: float = Field(default=0.0, ge=0)
    """Shift at the tap."""
    retain: float = Field(default=0.0, ge=0)
    """Activations at the tap on clean text near those of the untuned model."""

    @model_validator(mode="after")
    def _something(self) -> "Weights":
        if not any(self.model_dump().values()):
            raise ValueError("every weight is 0, so there is nothing to learn; give at least one term a weight")
        return self

    @property
    def to_the_end(self) -> bool:
        """Whether a term reads the next-token distribution; without one every pass stops at the tap."""
        return bool(self.clean or self.perturbed or self.consistency)


class TuneConfig(Config):
    """How a model is tuned."""

    method: Method = "lora"
    """`lora`: low-rank matrices beside frozen weights, through peft; `full`: the weights themselves, for small models."""
    rank: int = Field(default=16, ge=1)
    """Rank of the matrices."""
    alpha: float = Field(default=32.0, gt=0)
    """Scale of the matrices, divided by the rank."""
    modules: Literal["attention", "linear"] = "attention"
    """Which projections of a block are tuned: those of attention (q, k, v, o), or all."""
    blocks: int | None = Field(default=None, ge=1)
    """How many blocks are tuned, from the first on; None: up to the tap, that one included."""
    weights: Weights = Weights()
    """Weights of the terms."""
    pull: Pull = "energy"
    """What the shift term pulls on: `energy` of the meter, distance of pooled `concepts` from the clean centre, or the same of
    the `residual` stream itself."""
    targets: Literal["all", "kept"] = "all"
    """Tokens of corrupted text whose loss counts: all, or only those of words that nobody touched."""
    updates: int = Field(default=200, ge=1)
    """Optimiser steps."""
    batch: int = Field(default=16, ge=1)
    """Pairs of texts an update."""
    tokens: int = Field(default=1024, ge=8)
    """Padded tokens of one pass; the pairs of an update are spread over as many passes as that takes, and gradients add up."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate at its highest; it rises over `warmup` and falls linearly to 0."""
    warmup: float = Field(default=0.05, ge=0, le=1)
    """Share of the updates in which the learning rate rises."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """First moment of AdamW."""
    beta2: float = Field(default=0.98, ge=0, lt=1)
    """Second moment of AdamW."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW, times the learning rate."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient; longer ones are cut to it."""
    check_every: int = Field(default=20, ge=1)
    """Updates between two looks at clean text that is not trained on, each with a checkpoint."""
    retain_limit: float = Field(default=0.5, gt=0)
    """Most that the `retain` term may be on that text; above it the run has diverged."""
    clean_limit: float = Field(default=0.03, gt=0)
    """Most that the next-token loss on that text may rise, as a share; above it the run has diverged."""
    seed: int = 0
    """Seed of the low-rank matrices and of the order of texts."""

    def lr_at(self, update: int) -> float:
        """Learning rate of an update, counted from 0.

        >>> round(TuneConfig(updates=100, warmup=0.1, lr=1.0).lr_at(4), 3), TuneConfig(updates=100, lr=1.0).lr_at(99)
        (0.5, 0.01)
        """
        rise = max(1, round(self.warmup * self.updates))
        return self.lr * min((update + 1) / rise, (self.updates - update) / self.updates if update >= rise else 1.0)
