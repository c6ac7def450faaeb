"""JumpReLU: each latent fires above a cut of its own, learned through a straight-through estimate.

Assumes that each concept has its own level of noise, below which a pre-activation says nothing. The amplitude is not
shrunk. The active count is free.

Forms of the sparsity term (`mode`): `target` steers the mean count of a batch towards k; `step` weighs the count itself;
`token` steers the count of each token, which also penalises its spread and so the signal of counts under shift; `tanh`
(Anthropic, January 2025) weighs a saturating function of the amplitude, with a wide window and gradients towards every
parameter. Its weight could not be confirmed: 5 by default, meant for rows of norm sqrt(d_model) with d_model of several
hundred; on narrow activations it silences every latent, so lower it there. The first three reach the cuts alone.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from perimetry.axes import Acts, LatentBias, Latents
from perimetry.errors import WidthMismatch
from perimetry.sae.affine import AffineSAE, Weights, tiny_weights
from perimetry.sae.base import CountMode, Defaults, Options
from perimetry.sae.slots import fire_above
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Forward, Objective, Penalty, Terms
from perimetry.sae.steps.gates import CountGate, gate_pass, much_fires
from perimetry.sae.steps.products import sampled
from perimetry.sae.steps.select import AboveCut, Collector, PreActivations, Window
from perimetry.sae.steps.tanh import TanhPass, dense_tanh
from perimetry.sae.terms.smooth import smooth_term

__all__ = ["INITIAL_THRESHOLD", "JumpMode", "JumpReLUOptions", "JumpReLUSAE", "count_loss"]

INITIAL_THRESHOLD = 1e-3
INITIAL_THRESHOLD_TANH = 0.1
JumpMode = Literal["target", "step", "token", "tanh"]
MODES: dict[str | None, Defaults] = {
    None: Defaults(beta1=0.0, sparsity=1.0, sparsity_warmup=0.5),
    "target": Defaults(beta1=0.0, sparsity=1.0, sparsity_warmup=0.5, bandwidth=0.03),
    "token": Defaults(beta1=0.0, sparsity=1e-2, sparsity_warmup=0.5, bandwidth=0.03),
    "step": Defaults(beta1=0.0, sparsity=1e-3, sparsity_warmup=0.5, bandwidth=1e-3),
    "tanh": Defaults(sparsity=5.0, sparsity_warmup=1.0, unit_decoder=False, bandwidth=2.0, normalise="sqrt_d"),
}


class JumpReLUOptions(Options):
    """The form of the sparsity term."""

    mode: JumpMode | None = None
    """`target`, `step`, `token` or `tanh`; None takes `l0_loss` of the recipe."""


class _Jump(torch.autograd.Function):
    """p where p > theta; towards theta the derivative of a step smeared over a rectangle."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(pre, theta)
        ctx.width = width
        return pre * (pre > theta)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, theta = ctx.saved_tensors
        inside = ((pre - theta).abs() < ctx.width / 2).to(pre.dtype)
        return (pre > theta) * upstream[0], -(theta / ctx.width * inside * upstream[0]).sum(0), None


class _Fires(torch.autograd.Function):
    """1 where p > theta; towards theta the derivative of a step smeared over a rectangle, towards p none."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(pre, theta)
        ctx.width = width
        return (pre > theta).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[None, Tensor, None]:
        pre, theta = ctx.saved_tensors
        inside = ((pre - theta).abs() < ctx.width / 2).to(pre.dtype)
        return None, -(inside / ctx.width * upstream[0]).sum(0), None


@final
class JumpReLUSAE(AffineSAE):
    """Codes are p where p exceeds the latent's threshold (strictly), 0 elsewhere."""

    architecture: ClassVar[str] = "jumprelu"
    count_mode: ClassVar[CountMode] = "free"
    defaults: ClassVar[Defaults] = MODES[None]
    anneals_k: ClassVar[bool] = True
    options_type: ClassVar[type[Options]] = JumpReLUOptions

    def __init__(
        self,
        weights: Weights,
        *,
        threshold: LatentBias | None = None,
        mode: JumpMode | None = None,
        subtract_b_dec: bool = False,
    ) -> None:
        super().__init__()
        self.hold(weights, subtract_b_dec)
        self.mode = mode
        if threshold is None:
            first = INITIAL_THRESHOLD_TANH if mode == "tanh" else INITIAL_THRESHOLD
            threshold = torch.full_like(weights.b_enc, first)
        if threshold.shape != weights.b_enc.shape:
            raise WidthMismatch(
                f"threshold has shape {tuple(threshold.shape)}, the dictionary has {self.d_sae} latents; give one "
                "threshold a latent"
            )
        self.threshold = nn.Parameter(threshold)

    @classmethod
    @override
    def defaults_for(cls, options: Options) -> Defaults:
        assert isinstance(options, JumpReLUOptions)
        return MODES[options.mode]

    @override
    def cut(self) -> Tensor:
        return self.threshold.detach()

    @override
    def fire(self, pre: Latents) -> tuple[Tensor, Tensor]:
        return fire_above(pre, self.cut())

    @override
    def extras(self) -> dict[str, Tensor]:
        return {"threshold": self.threshold.detach()}

    @override
    def settings(self) -> dict[str, Any]:
        return {} if self.mode is None else {"mode": self.mode}

    @torch.no_grad()
    @override
    def after_update(self) -> None:
        self.threshold.clamp_(min=0)

    @override
    def collectors(self, pre: PreActivations, objective: Objective) -> list[Collector]:
        theta = self.threshold.detach()
        if self.mode != "tanh":
            if objective.smooth is None and much_fires(pre, theta - objective.bandwidth / 2):
                return []
            return [AboveCut(theta), Window(theta, objective.bandwidth)]
        # The contrast couples all tokens, so that their codes must be known before the pass over them.
        return [] if objective.smooth is None else [AboveCut(theta)]

    @override
    def terms(self, found: list[Active], pre: PreActivations, target: Acts, objective: Objective) -> Terms | None:
        if self.mode != "tanh":
            if found:
                return None
            mode = self.mode or objective.l0_loss
            gate = CountGate(self.threshold.detach(), objective, mode, target.shape[0])
            return gate_pass(pre, target, self.W_dec.detach(), self.b_dec.detach(), gate)
        smooth = smooth_term(found[0], objective.smooth) if found else None
        return TanhPass(self.W_dec.detach(), self.threshold.detach(), objective, smooth).run(
            pre, target, self.b_dec.detach()
        )

    @override
    def own_terms(self) -> bool:
        return self.mode == "tanh"

    @override
    def penalty(self, forward: Forward, objective: Objective) -> Penalty:
        active, window = forward.active, forward.extra
        assert window is not None, "the second collector is the window"
        theta, width = self.threshold.detach(), objective.bandwidth
        loss, slopes = count_loss(active, objective, self.mode or objective.l0_loss)
        through = sampled(window, forward.upstream, self.W_dec.detach())
        if forward.smooth is not None:
            through = through + forward.smooth.towards(window)
        inside = window.column_sums(slopes[window.rows()])
        towards = -(theta * window.column_sums(through) + inside) / width
        return Penalty(loss, None, {"threshold": towards})

    @override
    def dense_codes(self, pre: Latents, objective: Objective) -> Latents:
        codes = _Jump.apply(pre, self.threshold, objective.bandwidth)
        assert isinstance(codes, Tensor)
        return codes

    @override
    def dense_penalty(self, pre: Latents, codes: Latents, objective: Objective) -> Tensor:
        mode = self.mode or objective.l0_loss
        if mode == "tanh":
            return dense_tanh(pre, codes, self.W_dec.norm(dim=1), self.threshold, objective.sparsity)
        fires = _Fires.apply(pre, self.threshold, objective.bandwidth)
        assert isinstance(fires, Tensor)
        l0, target = fires.sum(1), objective.target_l0
        if mode == "target":
            return objective.sparsity * (l0.mean() / target - 1) ** 2
        if mode == "token":
            return objective.sparsity * 2 / target * (l0 - target).square().mean()
        return objective.sparsity * l0.mean()

    @classmethod
    @override
    def rebuild(
        cls,
        weights: Weights,
        *,
        extras: Mapping[str, Tensor],
        settings: Mapping[str, Any],
        subtract_b_dec: bool | None = None,
    ) -> "JumpReLUSAE":
        return cls(
            weights,
            threshold=extras.get("threshold"),
            mode=settings.get("mode"),
            subtract_b_dec=False if subtract_b_dec is None else subtract_b_dec,
        )

    @classmethod
    @override
    def tiny(cls) -> "JumpReLUSAE":
        return cls(tiny_weights(), threshold=torch.linspace(0, 0.4, 32))


def count_loss(active: Active, objective: Objective, mode: str) -> tuple[float, Tensor]:
    """The weighted term of the active counts, and its derivative by the count of each token."""
    weight, target, tokens = objective.sparsity, objective.target_l0, active.tokens
    counts = active.offsets.diff().to(active.values.dtype)
    if mode == "token":
        excess = counts - target
        return float(2 * weight / target * excess.square().mean()), 4 * weight / (target * tokens) * excess
    l0 = active.entries / tokens
    if mode == "target":
        excess = l0 / target - 1
        return weight * excess**2, torch.full_like(counts, 2 * weight * excess / (target * tokens))
    return weight * l0, torch.full_like(counts, weight / tokens)
