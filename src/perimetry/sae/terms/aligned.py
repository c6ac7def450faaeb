"""Aligned training: each encoder row reads exactly what its decoder row writes, <e_i, w_i> = 1.

Assumes that the direction that a concept is written with also carries the evidence for it; off that direction the encoder
is free, to leave out what other concepts write. With unit decoder rows, e_i = v_i + (1 - <v_i, w_i>) w_i for any v_i, so that
the equation holds by construction. It stays true when a scale is folded in. The parametrisation of the paper (arXiv
2605.18629) could not be confirmed; this one is ours.

Only the part of v across w matters. We keep v = e, for which the map is the identity: the gradients are those of the map at
that point, and after each update e is brought back by the map.
"""

import torch
from torch import Tensor

from perimetry.axes import Decoder, Encoder

__all__ = ["align", "aligned_rows", "through_alignment"]


def aligned_rows(free: Encoder, decoder: Decoder) -> Encoder:
    """v + (1 - <v, w>) w, differentiable; decoder rows are unit vectors.

    >>> aligned_rows(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([[1., 4.]])
    """
    return free + (1 - (free * decoder).sum(1, keepdim=True)) * decoder


@torch.no_grad()
def align(encoder: Encoder, decoder: Decoder) -> None:
    """Put every encoder row back to product 1 with its decoder row, in place."""
    encoder.copy_(aligned_rows(encoder, decoder))


@torch.no_grad()
def through_alignment(gradients: dict[str, Tensor], encoder: Encoder, decoder: Decoder) -> None:
    """Turn gradients with respect to e and w into those with respect to v = e and w, in place.

    That of e loses its part along w, that of w gains what reaches it through e.
    """
    towards = gradients["W_enc"]
    along = (towards * decoder).sum(1, keepdim=True)
    short = 1 - (encoder * decoder).sum(1, keepdim=True)
    gradients["W_dec"] = gradients["W_dec"] + short * towards - along * encoder
    gradients["W_enc"] = towards - along * decoder
