"""JumpReLU: each latent fires above a cut of its own, learned through a straight-through estimate.

Assumes that each concept has its own level of noise, below which a pre-activation says nothing. The amplitude is not
shrunk. The active count is free.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from perimetry.axes import LatentBias, Latents
from perimetry.errors import WidthMismatch
from perimetry.sae.affine import AffineSAE, Weights, fire_above, tiny_weights
from perimetry.sae.base import CountMode, Defaults
from perimetry.sae.steps.base import Forward, Objective, Penalty
from perimetry.sae.steps.products import sampled
from perimetry.sae.steps.select import AboveCut, Collector, PreActivations, Window

__all__ = ["INITIAL_THRESHOLD", "JumpReLUSAE"]

INITIAL_THRESHOLD = 1e-3


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
    defaults: ClassVar[Defaults] = Defaults(beta1=0.0, sparsity=1.0, sparsity_warmup=0.5)

    def __init__(self, weights: Weights, *, threshold: LatentBias | None = None, subtract_b_dec: bool = False) -> None:
        super().__init__()
        self.hold(weights, subtract_b_dec)
        if threshold is None:
            threshold = torch.full_like(weights.b_enc, INITIAL_THRESHOLD)
        if threshold.shape != weights.b_enc.shape:
            raise WidthMismatch(
                f"threshold has shape {tuple(threshold.shape)}, the dictionary has {self.d_sae} latents; give one "
                "threshold a latent"
            )
        self.threshold = nn.Parameter(threshold)

    @override
    def fire(self, pre: Latents) -> tuple[Tensor, Tensor]:
        return fire_above(pre, self.threshold.detach())

    @override
    def extras(self) -> dict[str, Tensor]:
        return {"threshold": self.threshold.detach()}

    @torch.no_grad()
    @override
    def after_update(self) -> None:
        self.threshold.clamp_(min=0)

    @override
    def collectors(self, pre: PreActivations, objective: Objective) -> list[Collector]:
        theta = self.threshold.detach()
        return [AboveCut(theta), Window(theta, objective.bandwidth)]

    @override
    def penalty(self, forward: Forward, objective: Objective) -> Penalty:
        active, window = forward.active, forward.extra
        assert window is not None, "the second collector is the window"
        theta, width = self.threshold.detach(), objective.bandwidth
        l0 = active.entries / active.tokens
        if objective.l0_loss == "target":
            excess = l0 / objective.target_l0 - 1
            loss = objective.sparsity * excess**2
            slope = 2 * objective.sparsity * excess / objective.target_l0
        else:
            loss, slope = objective.sparsity * l0, objective.sparsity
        through = sampled(window, forward.upstream, self.W_dec.detach())
        if forward.smooth is not None:
            through = through + forward.smooth.towards(window)
        inside = torch.bincount(window.columns, minlength=self.d_sae).to(theta.dtype)
        towards = -(theta * window.column_sums(through) + slope / active.tokens * inside) / width
        return Penalty(loss, None, {"threshold": towards})

    @override
    def dense_codes(self, pre: Latents, objective: Objective) -> Latents:
        codes = _Jump.apply(pre, self.threshold, objective.bandwidth)
        assert isinstance(codes, Tensor)
        return codes

    @override
    def dense_penalty(self, pre: Latents, codes: Latents, objective: Objective) -> Tensor:
        fires = _Fires.apply(pre, self.threshold, objective.bandwidth)
        assert isinstance(fires, Tensor)
        l0 = fires.sum(1).mean()
        if objective.l0_loss == "target":
            return objective.sparsity * (l0 / objective.target_l0 - 1) ** 2
        return objective.sparsity * l0

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
            subtract_b_dec=False if subtract_b_dec is None else subtract_b_dec,
        )

    @classmethod
    @override
    def tiny(cls) -> "JumpReLUSAE":
        return cls(tiny_weights(), threshold=torch.linspace(0, 0.4, 32))
