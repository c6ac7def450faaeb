"""How an SAE is trained: one frozen config, and the schedules that follow from it."""

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from perimetry.axes import ModelBias
from perimetry.config import Config, build
from perimetry.errors import UnknownName
from perimetry.sae import ARCHITECTURES
from perimetry.sae.base import AbstractSAE, Start
from perimetry.sae.steps.base import L0Loss

__all__ = ["TrainConfig"]

DEAD_AFTER = 10_000_000
MAX_WARMUP = 1000


class TrainConfig(Config):
    """One SAE's training. Lengths come from the token budget, so that a shorter run keeps the shape of its schedules."""

    architecture: str = "batchtopk"
    """Name in `ARCHITECTURES`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the architecture can be told beside width and k: the fields of its `options_type`."""
    width: int = Field(default=4608, ge=1)
    """Number of latents."""
    k: int = Field(default=32, ge=1)
    """Target of the mean active count (L0) per token; `standard` reaches its count by `sparsity` alone."""
    tokens: int = Field(default=1_000_000, ge=1)
    """Training tokens in all; the last, incomplete batch is left out."""
    batch: int = Field(default=2048, ge=1)
    """Tokens of one step."""
    seed: int = 0
    """Seed of the weights."""
    data_seed: int = 0
    """Seed of the order of the data; the same for several SAEs, so that they see the same batches."""
    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate; None is 2e-4 / sqrt(width / 16384), the rule of Gao et al., at most 1e-3."""
    lr_warmup: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps in which the learning rate rises, at most 1000 steps."""
    lr_decay: float = Field(default=0.2, ge=0, le=1)
    """Share of the steps at the end in which the learning rate falls to 0."""
    beta1: float | None = Field(default=None, ge=0, lt=1)
    """First moment of Adam; None is the architecture's own default, which for most is 0.9."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Second moment of Adam."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the whole gradient."""
    sparsity: float | None = Field(default=None, ge=0)
    """Weight of the sparsity term; None is the architecture's own default, and 1e-3 for the L0 loss `step`."""
    sparsity_warmup: float | None = Field(default=None, ge=0, le=1)
    """Share of the steps in which that weight rises from 0; None is the architecture's own default."""
    l0_loss: L0Loss = "target"
    """Form of the L0 term of `jumprelu`: towards `k`, or the count itself."""
    bandwidth: float | None = Field(default=None, gt=0)
    """Window of `jumprelu`'s straight-through estimate, in units of normalised pre-activations; None is 0.03 with
    target (about their noise, so that short runs reach their count), 1e-3 with step."""
    aux: float | None = Field(default=None, ge=0)
    """Weight of the loss that revives dead latents; None is 1/32 for the TopK family, 0 for the others."""
    dead_after: int | None = Field(default=None, ge=1)
    """Tokens without firing after which a latent is dead; None is the smaller of 10 million and a tenth of the budget."""
    normalise: Literal["rms1", "sqrt_d", "none"] = "rms1"
    """Scale put on the activations: mean square norm 1, mean norm sqrt(d_model), or none; folded into the result."""
    unit_decoder: bool | None = None
    """Decoder rows are kept at norm 1, and the part of their gradient along themselves is removed; None is the
    architecture's own default, which for most is true."""
    subtract_b_dec: bool | None = None
    """Take `b_dec` off the input; None is the architecture's own default."""
    fit_tokens: int = Field(default=32_768, ge=2)
    """Tokens on which scale and first `b_dec` (the geometric median) are fitted."""
    threshold_tokens: int = Field(default=32_768, ge=1)
    """Tokens, from after the budget where there are more, on which the threshold of BatchTopK is bisected."""
    threshold_decay: float = Field(default=0.999, gt=0, lt=1)
    """Decay of the running mean of the smallest selected value."""
    step: Literal["sparse", "dense"] = "sparse"
    """`sparse` is exact and fast; `dense` is the reference by autograd."""
    checkpoint_every: int | None = Field(default=None, ge=1)
    """Steps between checkpoints; None is a tenth of the run."""
    log_every: int = Field(default=10, ge=1)
    """Steps between lines of the log."""

    @model_validator(mode="after")
    def _known(self) -> "TrainConfig":
        if self.architecture not in ARCHITECTURES:
            raise UnknownName("architecture", self.architecture, ARCHITECTURES)
        build(self.sae_class.options_type, self.options, f"options of {self.architecture}")
        if self.k > self.width:
            raise ValueError(f"k = {self.k} exceeds width = {self.width}; give a smaller k")
        if self.tokens < self.batch:
            raise ValueError(f"tokens = {self.tokens} is less than one batch of {self.batch}; give more tokens")
        return self

    @property
    def sae_class(self) -> type[AbstractSAE]:
        """The class that is trained."""
        return ARCHITECTURES[self.architecture]

    @property
    def unit_rows(self) -> bool:
        """Whether decoder rows are kept at norm 1."""
        return self.sae_class.defaults.unit_decoder if self.unit_decoder is None else self.unit_decoder

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.tokens // self.batch

    @property
    def peak_lr(self) -> float:
        """Learning rate between warm-up and decay.

        >>> TrainConfig(width=16384).peak_lr
        0.0002
        """
        return self.lr if self.lr is not None else min(1e-3, 2e-4 / math.sqrt(self.width / 2**14))

    @property
    def first_moment(self) -> float:
        """First moment of Adam."""
        return self.beta1 if self.beta1 is not None else self.sae_class.defaults.beta1

    @property
    def peak_sparsity(self) -> float:
        """Weight of the sparsity term after its warm-up."""
        if self.sparsity is not None:
            return self.sparsity
        default = self.sae_class.defaults.sparsity
        return min(default, 1e-3) if self.l0_loss == "step" else default

    @property
    def window(self) -> float:
        """Window of the straight-through estimate."""
        return self.bandwidth if self.bandwidth is not None else (0.03 if self.l0_loss == "target" else 1e-3)

    @property
    def aux_weight(self) -> float:
        """Weight of the auxiliary loss."""
        return self.aux if self.aux is not None else self.sae_class.defaults.aux

    @property
    def dead_tokens(self) -> int:
        """Tokens without firing after which a latent is dead.

        >>> TrainConfig(tokens=1_000_000).dead_tokens
        100000
        """
        return self.dead_after if self.dead_after is not None else max(1, min(DEAD_AFTER, self.tokens // 10))

    def start(self, centre: ModelBias) -> Start:
        """What a fresh SAE starts from; `centre` is the first `b_dec`, in units of the scaled activations."""
        options = build(self.sae_class.options_type, self.options, f"options of {self.architecture}")
        return Start(centre, self.width, self.k, self.seed, self.subtract_b_dec, options)

    @property
    def checkpoint_steps(self) -> int:
        """Steps between checkpoints."""
        return self.checkpoint_every if self.checkpoint_every is not None else max(1, self.steps // 10)

    def lr_at(self, step: int) -> float:
        """Learning rate of step `step` (from 0): linear rise, constant, linear fall."""
        warmup = min(MAX_WARMUP, round(self.lr_warmup * self.steps))
        decay = round(self.lr_decay * self.steps)
        rise = (step + 1) / warmup if step < warmup else 1.0
        fall = (self.steps - step) / decay if step > self.steps - decay else 1.0
        return self.peak_lr * min(rise, fall)

    def sparsity_at(self, step: int) -> float:
        """Weight of the sparsity term at step `step`: linear rise, then constant."""
        share = self.sparsity_warmup
        if share is None:
            share = self.sae_class.defaults.sparsity_warmup
        ramp = round(share * self.steps)
        return self.peak_sparsity * min(1.0, (step + 1) / ramp if ramp else 1.0)
