"""The step of a small TopK dictionary whose silent latents attempt what is left: gradients by hand, in dense products.

At 128 latents nothing is gained by lists of entries, and the residual that the silent latents attempt is at hand.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from perimetry.axes import Acts, Latents
from perimetry.sae.topk import TopKSAE

__all__ = ["reviving_step"]


@torch.no_grad()
def reviving_step(
    sae: TopKSAE, rows: Acts, weight: float, silent: Int[Tensor, " latent"]
) -> tuple[dict[str, Tensor], Bool[Tensor, " d_sae"]]:
    """Gradients of the mean squared error plus `weight` times that of the silent latents' attempt, and which latents fired.

    The k largest of the `silent` latents attempt the residual, which is a constant there. `rows` without what the model's bias explains.
    """
    inputs = rows - sae.b_dec
    codes = _largest(torch.addmm(sae.b_enc, inputs, sae.W_enc.T).relu_(), sae.k)
    active = codes > 0
    residual = inputs - codes @ sae.W_dec
    gradients = _towards(codes, active, residual.mul(-2 / len(rows)), sae.W_dec, inputs)
    gradients["b_dec"] -= gradients["b_enc"] @ sae.W_enc
    if weight and silent.numel():
        encoder, decoder = sae.W_enc[silent], sae.W_dec[silent]
        found = _largest((inputs @ encoder.T).relu_(), sae.k)
        upstream = (found @ decoder - residual).mul_(2 * weight / len(rows))
        more = _towards(found, found > 0, upstream, decoder, inputs)
        for name in ("W_enc", "W_dec"):
            gradients[name].index_add_(0, silent, more[name])
    return gradients, active.any(0)


def _towards(codes: Latents, active: Tensor, upstream: Acts, decoder: Tensor, inputs: Acts) -> dict[str, Tensor]:
    """Gradients, given that of the reconstruction."""
    towards = (upstream @ decoder.T).mul_(active)
    return {
        "W_enc": towards.T @ inputs,
        "W_dec": codes.T @ upstream,
        "b_enc": towards.sum(0),
        "b_dec": upstream.sum(0),
    }


def _largest(codes: Latents, k: int) -> Latents:
    """All but the k largest of each row set to 0."""
    if k >= codes.shape[1]:
        return codes
    kept = codes.topk(k, dim=1, sorted=False)
    return torch.zeros_like(codes).scatter_(1, kept.indices, kept.values)
