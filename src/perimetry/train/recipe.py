"""How an SAE is trained: one frozen config, and the schedules that follow from it."""

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from perimetry.axes import ModelBias
from perimetry.config import build
from perimetry.errors import UnknownName
from perimetry.sae import ARCHITECTURES
from perimetry.sae.affine import AffineSAE
from perimetry.sae.base import AbstractSAE, Defaults, Options, Start
from perimetry.sae.steps.base import L0Loss, Smooth
from perimetry.sae.terms.frozen import Frozen
from perimetry.train.causal_config import CausalConfig

__all__ = ["TrainConfig"]

DEAD_AFTER = 10_000_000
MAX_WARMUP = 1000
BY_FORM: dict[str, tuple[float, float]] = {"target": (1.0, 0.03), "step": (1e-3, 1e-3), "token": (1e-2, 0.03)}
"""Form of the L0 term -> weight and window, where neither recipe nor architecture says them."""


class TrainConfig(CausalConfig):
    """One SAE's training. Lengths come from the token budget, so that a shorter run keeps the shape of its schedules."""

    architecture: str = "batchtopk"
    """Name in `ARCHITECTURES`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the architecture can be told beside width and k: the fields of its `options_type`."""
    width: int = Field(default=4608, ge=1)
    """Number of latents."""
    k: int = Field(default=32, ge=1)
    """Target of the mean active count (L0) per token; `standard` reaches its count by `sparsity` alone."""
    k_start: int | None = Field(default=None, ge=1)
    """Active count at the first step, from which it falls (or rises) to `k`; None is `k` throughout."""
    k_anneal: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps in which the count goes from `k_start` to `k`."""
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
    """Weight of the sparsity term; None is the architecture's own default, 1e-3 for the L0 loss `step`, 1e-2 for `token`."""
    sparsity_warmup: float | None = Field(default=None, ge=0, le=1)
    """Share of the steps in which that weight rises from 0; None is the architecture's own default."""
    l0_loss: L0Loss = "target"
    """Form of the L0 term of `jumprelu`: towards `k`, the count itself, or towards `k` in each token; `mode` of its options
    goes before."""
    bandwidth: float | None = Field(default=None, gt=0)
    """Window of `jumprelu`'s straight-through estimate, in units of normalised pre-activations; None is 0.03 with
    target (about their noise, so that short runs reach their count), 1e-3 with step, 2 with the mode tanh."""
    aux: float | None = Field(default=None, ge=0)
    """Weight of the loss that revives dead latents; None is 1/32 for the TopK family, 0 for the others."""
    dead_after: int | None = Field(default=None, ge=1)
    """Tokens without firing after which a latent is dead; None is the smaller of 10 million and a tenth of the budget."""
    normalise: Literal["rms1", "sqrt_d", "none"] | None = None
    """Scale put on the activations: mean square norm 1, mean norm sqrt(d_model), or none; folded into the result. None is
    the architecture's own default, which for most is rms1."""
    unit_decoder: bool | None = None
    """Decoder rows are kept at norm 1, and the part of their gradient along themselves is removed; None is the
    architecture's own default, which for most is true."""
    subtract_b_dec: bool | None = None
    """Take `b_dec` off the input; None is the architecture's own default."""
    ortho: float = Field(default=0.0, ge=0)
    """Weight of OrtSAE's term: the mean over latents of the squared cosine with the nearest decoder row of the same chunk."""
    ortho_chunk: int = Field(default=2048, ge=2)
    """Latents of such a chunk, drawn anew each step; the term costs as much as the encoder product of that many tokens."""
    smooth: float = Field(default=0.0, ge=0)
    """Weight of T-SAE's term, by which the first latents agree on adjacent tokens; the source must give pairs of them."""
    smooth_share: float = Field(default=0.2, gt=0, le=1)
    """Share of the latents, from the first on, that shall agree."""
    smooth_temperature: float = Field(default=0.1, gt=0)
    """What the cosines of that term are divided by."""
    aligned: bool = False
    """Every encoder row has product 1 with its decoder row, exactly, at every step."""
    frozen: Frozen = "none"
    """A control: the random decoder rows stay (`decoder`), stay within a cone (`soft_decoder`), or `W_enc` and `b_enc` do
    (`encoder`)."""
    soft_cosine: float = Field(default=0.8, gt=0, le=1)
    """Least cosine of a row with its first value, for `frozen = "soft_decoder"`."""
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
        self._fits_together()
        return self

    def _fits_together(self) -> None:
        name = self.architecture
        asked = [n for n in ("ortho", "smooth", "aligned") if getattr(self, n)] + ["frozen"] * (self.frozen != "none")
        if asked and not issubclass(self.sae_class, AffineSAE):
            raise ValueError(f"{asked[0]} acts on an encoder and a decoder matrix, {name} has others; leave it out")
        if self.causal and not (issubclass(self.sae_class, AffineSAE) and self.sae_class.reads == "one"):
            raise ValueError(
                f"causal = {self.causal:g} moves codes of an affine encoder and puts what they give back in their place; {name} "
                "is none, or gives another place than it reads; set causal = 0"
            )
        if self.k_start is not None and not (self.sae_class.anneals_k and self.k_start <= self.width):
            raise ValueError(
                f"k_start = {self.k_start} for {name} of width {self.width}; it wants an architecture that is told its count, "
                "and at most the width"
            )
        if self.smooth and self.batch % 2:
            raise ValueError(f"smooth wants pairs of tokens, batch = {self.batch} is odd; give an even one")
        if self.aligned and self.frozen == "encoder":
            raise ValueError("aligned moves the encoder and frozen = 'encoder' forbids it; leave one out")
        if (self.aligned or self.frozen == "soft_decoder") and not self.unit_rows:
            raise ValueError("aligned and soft_decoder want decoder rows of norm 1; set unit_decoder = true")

    @property
    def sae_class(self) -> type[AbstractSAE]:
        """The class that is trained."""
        return ARCHITECTURES[self.architecture]

    @property
    def chosen(self) -> Options:
        """The options of the architecture."""
        return build(self.sae_class.options_type, self.options, f"options of {self.architecture}")

    @property
    def defaults(self) -> Defaults:
        """How the architecture is trained with these options where nothing else is said."""
        return self.sae_class.defaults_for(self.chosen)

    @property
    def unit_rows(self) -> bool:
        """Whether decoder rows are kept at norm 1."""
        return self.defaults.unit_decoder if self.unit_decoder is None else self.unit_decoder

    @property
    def scale_rule(self) -> str:
        """Scale put on the activations."""
        return self.defaults.normalise if self.normalise is None else self.normalise

    @property
    def paired(self) -> bool:
        """Whether rows 2i and 2i + 1 of each batch must be adjacent tokens."""
        return self.smooth > 0

    @property
    def contrast(self) -> Smooth | None:
        """The contrastive term, if there is one."""
        return Smooth(self.smooth, self.smooth_temperature, self.smooth_share) if self.smooth else None

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
        return self.beta1 if self.beta1 is not None else self.defaults.beta1

    @property
    def peak_sparsity(self) -> float:
        """Weight of the sparsity term after its warm-up."""
        if self.sparsity is not None:
            return self.sparsity
        found = self.defaults
        # An architecture that has a window for these options has a weight that fits it.
        return found.sparsity if found.bandwidth is not None else min(found.sparsity, BY_FORM[self.l0_loss][0])

    @property
    def window(self) -> float:
        """Window of the straight-through estimate."""
        if self.bandwidth is not None:
            return self.bandwidth
        found = self.defaults.bandwidth
        return found if found is not None else BY_FORM[self.l0_loss][1]

    @property
    def aux_weight(self) -> float:
        """Weight of the auxiliary loss."""
        return self.aux if self.aux is not None else self.defaults.aux

    @property
    def dead_tokens(self) -> int:
        """Tokens without firing after which a latent is dead.

        >>> TrainConfig(tokens=1_000_000).dead_tokens
        100000
        """
        return self.dead_after if self.dead_after is not None else max(1, min(DEAD_AFTER, self.tokens // 10))

    def row_parts(self, row_width: int) -> tuple[int, ...]:
        """Widths of the parts of a row that are scaled each by itself."""
        options = build(self.sae_class.options_type, self.options, f"options of {self.architecture}")
        return self.sae_class.row_parts(row_width, options)

    def start(self, centre: ModelBias) -> Start:
        """What a fresh SAE starts from; `centre` is the first `b_dec`, in units of the scaled activations."""
        return Start(centre, self.width, self.k, self.seed, self.subtract_b_dec, self.chosen)

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
            share = self.defaults.sparsity_warmup
        ramp = round(share * self.steps)
        return self.peak_sparsity * min(1.0, (step + 1) / ramp if ramp else 1.0)

    def causal_at(self, step: int) -> float:
        """Weight of the causal loss at step `step`: linear rise, then constant; 0 at the steps that have none.

        >>> config = TrainConfig(causal=2.0, causal_every=2, causal_ramp=0.5, tokens=2048 * 8)
        >>> [config.causal_at(step) for step in range(6)]
        [0.5, 0.0, 1.5, 0.0, 2.0, 0.0]
        """
        if step % self.causal_every:
            return 0.0
        ramp = round(self.causal_ramp * self.steps)
        return self.causal * min(1.0, (step + 1) / ramp if ramp else 1.0)

    def k_at(self, step: int) -> int:
        """Active count that step `step` aims at: linear from `k_start` to `k`, then constant.

        >>> config = TrainConfig(k=20, k_start=60, k_anneal=0.5, tokens=2048 * 8)
        >>> [config.k_at(step) for step in range(6)]
        [60, 50, 40, 30, 20, 20]
        """
        ramp = round(self.k_anneal * self.steps)
        if self.k_start is None or step >= ramp:
            return self.k
        return round(self.k_start + (self.k - self.k_start) * step / ramp)
