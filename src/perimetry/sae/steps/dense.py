"""The auxiliary loss by plain autograd, in whatever precision the weights have: the reference for the sparse one."""

import torch
from jaxtyping import Bool
from torch import Tensor

from perimetry.axes import Acts, Decoder, Latents

__all__ = ["dense_aux"]


def dense_aux(pre: Latents, residual: Acts, decoder: Decoder, dead: Bool[Tensor, " d_sae"], weight: float) -> Tensor:
    """The dead latents' attempt at the residual, which is a constant here, over the residual's variance."""
    n_dead, d_model = int(dead.sum()), decoder.shape[1]
    if weight == 0 or n_dead == 0:
        return pre.new_zeros(())
    target = residual.detach()
    variance = (target - target.mean(0)).square().sum(1).mean()
    if float(variance) == 0:
        return pre.new_zeros(())
    allowed = pre.masked_fill(~dead, -torch.inf)
    ranked = allowed.detach().argsort(dim=1, descending=True, stable=True)
    ranked = ranked[:, : min(max(1, d_model // 2), n_dead)]
    codes = torch.zeros_like(pre).scatter(1, ranked, torch.relu(allowed.gather(1, ranked)))
    error = (codes @ decoder - target).square().sum(1).mean()
    return weight * min(1.0, 2 * n_dead / d_model) * error / variance
