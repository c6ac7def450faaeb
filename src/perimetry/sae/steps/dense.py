"""The reference step: plain autograd on dense latents, in whatever precision the weights have.

Slow and hungry on purpose: it is written as the formulas are, and the sparse step is tested against it.
"""

import torch
from jaxtyping import Bool
from torch import Tensor

from perimetry.axes import Acts, Latents
from perimetry.sae.affine import AffineSAE
from perimetry.sae.steps.base import Objective, StepResult

__all__ = ["dense_step"]


def _aux_loss(sae: AffineSAE, pre: Latents, residual: Acts, dead: Tensor, weight: float) -> Tensor:
    n_dead = int(dead.sum())
    if weight == 0 or n_dead == 0:
        return pre.new_zeros(())
    target = residual.detach()
    variance = (target - target.mean(0)).square().sum(1).mean()
    if float(variance) == 0:
        return pre.new_zeros(())
    allowed = pre.masked_fill(~dead, -torch.inf)
    ranked = allowed.detach().argsort(dim=1, descending=True, stable=True)
    ranked = ranked[:, : min(max(1, sae.d_model // 2), n_dead)]
    codes = torch.zeros_like(pre).scatter(1, ranked, torch.relu(allowed.gather(1, ranked)))
    error = (codes @ sae.W_dec - target).square().sum(1).mean()
    return weight * min(1.0, 2 * n_dead / sae.d_model) * error / variance


def dense_step(
    sae: AffineSAE, acts: Acts, objective: Objective, dead: Bool[Tensor, " d_sae"] | None = None
) -> StepResult:
    """Loss terms and gradients of one batch, as `sparse_step` gives them."""
    acts = acts.to(sae.W_dec.dtype)
    centred = acts - sae.b_dec if sae.subtract_b_dec else acts
    pre = centred @ sae.W_enc.T + sae.b_enc
    codes = sae.dense_codes(pre, objective)
    residual = acts - (codes @ sae.W_dec + sae.b_dec)
    reconstruction = residual.square().sum(1).mean()
    sparsity = sae.dense_penalty(pre, codes, objective)
    nobody = torch.zeros(sae.d_sae, dtype=torch.bool, device=acts.device)
    aux = _aux_loss(sae, pre, residual, nobody if dead is None else dead, objective.aux)
    names, parameters = zip(*sae.named_parameters(), strict=True)
    found = torch.autograd.grad(reconstruction + sparsity + aux, parameters, allow_unused=True)
    gradients = {n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, found, strict=True)}
    total = (acts - acts.mean(0)).square().sum()
    fires = codes.detach() != 0
    positive = codes.detach()[fires]
    return StepResult(
        gradients=gradients,
        reconstruction=float(reconstruction.detach()),
        sparsity=float(sparsity.detach()),
        aux=float(aux.detach()),
        fvu=float(residual.detach().square().sum() / total) if float(total) > 0 else 0.0,
        l0=float(fires.sum(1).double().mean()),
        fired=fires.any(0),
        smallest=float(positive.min()) if positive.numel() else None,
    )
