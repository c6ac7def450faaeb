"""Steps by autograd: of the dense reference of any architecture, and of the sparse losses of those without gradients by hand."""

import torch
from jaxtyping import Bool
from torch import Tensor

from perimetry.axes import Acts
from perimetry.sae.base import AbstractSAE, AutogradSAE
from perimetry.sae.steps.base import Losses, Objective, StepResult

__all__ = ["autograd_step", "dense_step"]


def _nobody(sae: AbstractSAE, acts: Acts, dead: Tensor | None) -> Tensor:
    return torch.zeros(sae.d_sae, dtype=torch.bool, device=acts.device) if dead is None else dead


def _finish(sae: AbstractSAE, acts: Acts, losses: Losses) -> StepResult:
    names, parameters = zip(*sae.named_parameters(), strict=True)
    total = losses.reconstruction + losses.sparsity + losses.aux + losses.further
    found = torch.autograd.grad(total, parameters, allow_unused=True)
    gradients = {n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, found, strict=True)}
    spread = float((acts - acts.mean(0)).square().sum())
    return StepResult(
        gradients=gradients,
        reconstruction=float(losses.reconstruction.detach()),
        sparsity=float(losses.sparsity.detach()),
        aux=float(losses.aux.detach()),
        fvu=losses.error / spread if spread > 0 else 0.0,
        l0=losses.l0,
        fired=losses.fired,
        smallest=losses.smallest,
        further=float(losses.further.detach() if isinstance(losses.further, Tensor) else losses.further),
    )


def autograd_step(
    sae: AutogradSAE, rows: Acts, objective: Objective, dead: Bool[Tensor, " d_sae"] | None = None
) -> StepResult:
    """Gradients of `losses`: what the architectures without gradients by hand are trained with."""
    rows = rows.to(sae.W_dec.dtype)
    return _finish(sae, sae.targets(rows), sae.losses(rows, objective, _nobody(sae, rows, dead)))


def dense_step(
    sae: AbstractSAE, rows: Acts, objective: Objective, dead: Bool[Tensor, " d_sae"] | None = None
) -> StepResult:
    """Gradients of `dense_losses`: slow and hungry on purpose, the reference that the other steps are tested against."""
    rows = rows.to(sae.W_dec.dtype)
    return _finish(sae, sae.targets(rows), sae.dense_losses(rows, objective, _nobody(sae, rows, dead)))
