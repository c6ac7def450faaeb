"""Geometry of a dictionary: how much its directions repeat each other, whether encoder and decoder agree."""

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.axes import Decoder, Encoder, LatentBias
from perimetry.errors import TooFewSamples

__all__ = ["alignment", "redundancy"]

BLOCK = 1024


def _unit(rows: Float[Tensor, "d_sae d_model"]) -> Float[Tensor, "d_sae d_model"]:
    lengths = rows.norm(dim=1, keepdim=True)
    return torch.where(lengths > 0, rows / lengths.clamp(min=torch.finfo(rows.dtype).tiny), 0)


def redundancy(decoder: Decoder) -> LatentBias:
    """Largest cosine of each row with any other row, -1 to 1; lower is better, orthonormal rows give 0.

    Rows of length 0 have cosine 0 with every other. Errors: `TooFewSamples` for fewer than two rows.

    >>> redundancy(torch.eye(3))
    tensor([0., 0., 0.])
    """
    n = decoder.shape[0]
    if n < 2:
        raise TooFewSamples(f"{n} row has no other to be compared with; give a dictionary of two or more")
    unit = _unit(decoder)
    out = decoder.new_empty(n)
    for start in range(0, n, BLOCK):
        cosines = unit[start : start + BLOCK] @ unit.T
        places = torch.arange(cosines.shape[0])
        cosines[places, places + start] = -torch.inf
        out[start : start + BLOCK] = cosines.amax(1)
    return out


def alignment(encoder: Encoder, decoder: Decoder) -> LatentBias:
    """Cosine of what each latent reads with what it writes, -1 to 1; tied weights give 1.

    >>> alignment(torch.eye(2), 3 * torch.eye(2))
    tensor([1., 1.])
    """
    return (_unit(encoder) * _unit(decoder)).sum(1)
