"""The step of a gated dictionary where many gates are open: by dense chunks of rows.

A young gated dictionary opens half of its gates. Six dense products by chunks are faster there than gathers by entries, and
no (token, latent) matrix of the whole batch exists.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from perimetry.axes import Acts, Decoder, LatentBias, ModelBias
from perimetry.sae.steps import products, room
from perimetry.sae.steps.base import Penalty, Terms
from perimetry.sae.steps.gates import lean_chunks, norm_pull
from perimetry.sae.steps.select import PreActivations
from perimetry.sae.steps.tallies import Tally, nothing_listed

__all__ = ["Doors", "open_pass"]


class Doors(NamedTuple):
    """The parameters of a gated dictionary beside its encoder."""

    decoder: Decoder
    """Rows are the directions that latents write."""
    b_dec: ModelBias
    """Added to the reconstruction."""
    b_gate: LatentBias
    """Bias of the gate."""
    growth: LatentBias
    """exp(r_mag): what the product is multiplied with for the magnitude."""
    b_mag: LatentBias
    """Bias of the magnitude."""


def open_pass(pre: PreActivations, target: Acts, doors: Doors, weight: float) -> Terms:
    """All terms of a batch and the gradients of the weights; `weight` is that of the gates' sum."""
    tokens, scale, decoder = target.shape[0], -2 / target.shape[0], doors.decoder
    norms = decoder.norm(dim=1)
    per_gate = weight / tokens
    upstream, offset = torch.empty_like(target), target - doors.b_dec
    W_dec, W_enc = room.zeros("W_dec", decoder), room.zeros("W_enc", pre.W_enc)
    names = ("b_enc", "sums", "b_mag", "r_mag", "through")
    found: dict[str, Tensor] = {name: torch.zeros_like(norms) for name in names}
    tally, error, missed = Tally(decoder.shape[0], target.device), 0.0, 0.0
    for start, chunk in lean_chunks(pre):
        part = slice(start, start + chunk.shape[0])
        is_open = chunk > 0
        gates, product = chunk * is_open, chunk - doors.b_gate
        magnitude = doors.growth * product + doors.b_mag
        fires = is_open & (magnitude > 0)
        codes = magnitude.mul_(fires)
        tally.add(codes, fires)
        residual = offset[part] - codes @ decoder
        error += products.square_sum(residual)
        upstream[part] = residual.mul_(scale)
        W_dec.addmm_(codes.T, upstream[part])
        attempt = offset[part] - gates @ decoder
        missed += products.square_sum(attempt)
        found["sums"] += gates.sum(0)
        delta = (upstream[part] @ decoder.T).mul_(fires)
        found["b_mag"] += delta.sum(0)
        through = delta.mul_(doors.growth)
        found["through"] += through.sum(0)
        found["r_mag"] += product.mul_(through).sum(0)
        towards = torch.addmm(per_gate * norms, attempt.mul_(scale), decoder.T).mul_(is_open).add_(through)
        found["b_enc"] += towards.sum(0)
        W_enc.addmm_(towards.T, pre.acts[part])
    gradients = {
        # The common step counts what reaches the product; b_gate gets the part of the gate alone.
        "b_enc": -found["through"],
        "b_mag": found["b_mag"],
        "r_mag": found["r_mag"],
    }
    return Terms(
        active=nothing_listed(tokens, decoder.shape[0], target),
        residual=upstream / scale,
        reconstruction=error / tokens,
        upstream=upstream,
        W_dec=W_dec,
        W_enc=W_enc,
        b_enc=found["b_enc"],
        penalty=Penalty(
            per_gate * float((found["sums"] * norms).sum()), None, gradients, norm_pull(per_gate * found["sums"], norms)
        ),
        further=missed / tokens,
        summary=tally.summary(),
    )
