"""The update of the two matrices on a GPU: projection, norms, Adam and unit rows in two passes over each."""

import math

import torch
from torch import Tensor

from perimetry.sae.affine import AffineSAE
from perimetry.sae.base import AbstractSAE
from perimetry.sae.steps import device

__all__ = ["update_rows"]

MATRICES = ("W_enc", "W_dec")


def _known(sae: AbstractSAE, optimizer: torch.optim.Optimizer) -> bool:
    group = optimizer.param_groups[0]
    plain = isinstance(optimizer, torch.optim.Adam) and not (
        group["amsgrad"] or group["weight_decay"] or group["maximize"]
    )
    return plain and isinstance(sae, AffineSAE) and device.usable(sae.W_enc.detach(), sae.W_dec.detach())


def _moments(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
    return state


def _adam(optimizer: torch.optim.Optimizer, parameter: Tensor, gradient: Tensor, clip: float, *, unit: bool) -> bool:
    state, group = _moments(optimizer, parameter), optimizer.param_groups[0]
    done = device.adam(
        parameter.detach(),
        gradient,
        (state["exp_avg"], state["exp_avg_sq"]),
        clip=clip,
        betas=group["betas"],
        step=int(state["step"]) + 1,
        rate=group["lr"],
        eps=group["eps"],
        unit=unit,
    )
    if done:
        state["step"] += 1
    return done


@torch.no_grad()
def update_rows(
    sae: AbstractSAE,
    optimizer: torch.optim.Optimizer,
    gradients: dict[str, Tensor],
    *,
    clip: float,
    unit_decoder: bool,
) -> float | None:
    """One update by the kernels of the GPU; gives the norm of the gradient before clipping, None where they do not apply.

    The decoder's gradient may have been projected then, which does it no harm when it is done again.
    """
    if not _known(sae, optimizer) or any(name not in gradients for name in MATRICES):
        return None
    named = dict(sae.named_parameters())
    total = 0.0
    for name in MATRICES:
        squares = device.project(gradients[name], named[name].detach(), along=unit_decoder and name == "W_dec")
        if squares is None:
            return None
        total += float(squares.double().sum())
    vectors = {name: gradients[name] for name in named if name not in MATRICES}
    norm = math.sqrt(total + sum(float(torch.linalg.vector_norm(g)) ** 2 for g in vectors.values()))
    factor = clip / norm if norm > clip else 1.0
    # A matrix whose kernel fails goes with the vectors, by the operations of torch.
    left = {
        name: gradients[name]
        for name in MATRICES
        if not _adam(optimizer, named[name], gradients[name], factor, unit=unit_decoder and name == "W_dec")
    }
    for name, gradient in (vectors | left).items():
        named[name].grad = gradient * factor
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if unit_decoder and "W_dec" in left:
        rows = named["W_dec"]
        rows.div_(rows.norm(dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny))
    return norm
