"""The cosine penalty of OrtSAE (arXiv 2509.22033): no decoder row close to another one.

Assumes that concepts are near-orthogonal, so that two rows that point the same way are one concept split or one absorbed.
The term is gamma times the mean over latents of the squared cosine with the nearest other row of the same chunk. Chunks
are drawn anew each step, so that every pair meets in time at the cost of a chunk: as much as the encoder product of that
many tokens. Chunk size and gamma of the paper could not be confirmed; both are settings.
"""

import hashlib
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.axes import Decoder
from perimetry.runtime import generator
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.products import decode, transposed

__all__ = ["OrthoTerm", "chunks_of", "dense_ortho", "ortho_term"]


class OrthoTerm(NamedTuple):
    """The weighted term and its gradient."""

    loss: float
    """Between 0 (all chunks orthogonal) and the weight (every row has a twin)."""
    gradient: Decoder
    """With respect to the decoder."""


def chunks_of(d_sae: int, chunk: int, seed: int, step: int) -> tuple[Tensor, ...]:
    """The latents in random order, cut into pieces of `chunk`; seed and step decide.

    >>> [len(c) for c in chunks_of(10, 4, seed=0, step=0)]
    [4, 4, 2]
    """
    # The generator reads 32 bits of its seed, so that seed and step must share them.
    mixed = int.from_bytes(hashlib.blake2b(f"{seed}:{step}".encode(), digest_size=4).digest(), "little")
    return torch.randperm(d_sae, generator=generator(mixed)).split(chunk)


def _unit(decoder: Decoder) -> tuple[Tensor, Tensor]:
    norms = decoder.norm(dim=1, keepdim=True).clamp(min=torch.finfo(decoder.dtype).tiny)
    return decoder / norms, norms


def _nearest(rows: Decoder) -> tuple[Tensor, Tensor]:
    """Squared cosine of each row with its nearest other one, and which that is; rows are unit vectors."""
    squares = (rows @ rows.T).square().fill_diagonal_(-1.0)
    return squares.max(1)


@torch.no_grad()
def ortho_term(decoder: Decoder, weight: float, chunks: tuple[Tensor, ...]) -> OrthoTerm:
    """The term over the given chunks, with its gradient by hand; the nearest row of a row is taken for fixed."""
    unit, norms = _unit(decoder)
    gradient, total = torch.zeros_like(decoder), 0.0
    for chunk in chunks:
        chunk = chunk.to(decoder.device)
        if chunk.numel() < 2:
            continue
        rows = unit[chunk]
        squares, nearest = _nearest(rows)
        total += float(squares.double().sum())
        cosines = (rows * rows[nearest]).sum(1)
        count = chunk.numel()
        pairs = Active(torch.arange(count + 1, device=rows.device), nearest, cosines, count)
        gradient[chunk] = decode(pairs, rows) + transposed(pairs, None, rows)
    scale = weight / decoder.shape[0]
    along = (gradient * unit).sum(1, keepdim=True)
    gradient.addcmul_(along, unit, value=-1).div_(norms).mul_(2 * scale)
    return OrthoTerm(scale * total, gradient)


def dense_ortho(decoder: Decoder, weight: float, chunks: tuple[Tensor, ...]) -> Float[Tensor, ""]:
    """The term by autograd: the reference for `ortho_term`."""
    total = decoder.new_zeros(())
    for chunk in chunks:
        if chunk.numel() > 1:
            rows = decoder[chunk] / decoder[chunk].norm(dim=1, keepdim=True)
            cosines = rows @ rows.T
            itself = torch.eye(chunk.numel(), dtype=torch.bool)
            total = total + cosines.square().masked_fill(itself, -1.0).max(1).values.sum()
    return weight * total / decoder.shape[0]
