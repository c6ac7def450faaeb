"""Dictionaries of prototypes where most latents share a token: dense products, one chunk of tokens at a time.

A list of the entries would be larger than the dictionary then, and autograd would hold a matrix for every step of the
formula. Here the gradient of a chunk is taken by hand, in four matrices of one chunk that serve all of them.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd import Function

from perimetry.axes import Acts, Decoder, Encoder, Latents, PerToken
from perimetry.sae.steps import native
from perimetry.sae.steps.base import Losses
from perimetry.sae.steps.products import chunk_rows

__all__ = ["Crowd", "crowded_losses", "project"]

SMALLER = 4
"""How much smaller than elsewhere chunks are: four matrices are held."""


class Crowd(NamedTuple):
    """Scores are sharpness * (of_products * x . a_i + of_squares * |a_i|^2), codes their projection onto the simplex."""

    W_enc: Encoder
    """Prototypes."""
    W_dec: Decoder
    """What each latent writes."""
    rho: Float[Tensor, ""]
    """Sharpness is softplus of it."""
    of_products: float
    """Factor on products."""
    of_squares: float
    """Factor on the squared norm of the prototype."""
    sparsity: float
    """Factor on the sum of code times squared distance."""


class _Buffers(NamedTuple):
    products: Tensor
    codes: Tensor
    mask: Tensor
    slope: Tensor

    def rows(self, count: int) -> "_Buffers":
        return _Buffers(*(buffer[:count] for buffer in self))


def _excess(shifted: Latents, cut: PerToken, out: Tensor) -> Tensor:
    """max(shifted - cut, 0); the cut is in float64 and is taken off in two parts, since its rounding would add up."""
    high = cut.to(shifted.dtype)
    low = (cut - high.double()).to(shifted.dtype)
    return torch.sub(shifted, high[:, None], out=out).sub_(low[:, None]).clamp_(min=0)


def project(scores: Latents, codes: Tensor, mask: Tensor) -> PerToken:
    """Write the projection of `scores` to `codes` and 1 where it is above 0 to `mask`; the number of those a token.

    `scores` are shifted to a largest of 0 in place. Michelot's rule: the cut rises until the number above it stays.

    >>> scores = torch.tensor([[1.0, 0.5, -3.0]])
    >>> codes, mask = torch.empty_like(scores), torch.empty_like(scores)
    >>> project(scores, codes, mask), codes
    (tensor([2.]), tensor([[0.7500, 0.2500, 0.0000]]))
    """
    if native.usable(scores, codes, mask):
        return native.project(scores, codes, mask)
    scores -= scores.amax(1)[:, None]
    ones = scores.new_ones(scores.shape[1])
    cut = ((scores.sum(1).double() - 1) / scores.shape[1]).clamp_(min=-1)
    before: Tensor | None = None
    while True:
        torch.gt(_excess(scores, cut, codes), 0, out=mask)
        count = mask @ ones
        # Rounding must not bring the cut down again: the counts then only fall, and the loop ends.
        cut = cut + ((codes.sum(1).double() - 1) / count).clamp_(min=0)
        if before is not None and torch.equal(count, before):
            _excess(scores, cut, codes)
            return count
        before = count


class _Sums:
    """Gradients and losses, summed over chunks."""

    def __init__(self, crowd: Crowd) -> None:
        width, device = crowd.W_enc.shape[0], crowd.W_enc.device
        self.W_enc, self.W_dec = torch.zeros_like(crowd.W_enc), torch.zeros_like(crowd.W_dec)
        self.squares, self.sharpness = crowd.W_enc.new_zeros(width), 0.0
        self.error, self.penalty, self.entries = 0.0, 0.0, 0.0
        self.fired: Bool[Tensor, " d_sae"] = torch.zeros(width, dtype=torch.bool, device=device)


def _add(sums: _Sums, crowd: Crowd, acts: Acts, target: Acts, share: float, squares: Tensor, buffers: _Buffers) -> None:
    """Losses and gradients of one chunk; `share` is 1 over the tokens of the batch."""
    products, codes, mask, slope = buffers.rows(acts.shape[0])
    sharpness = float(torch.nn.functional.softplus(crowd.rho.double()))
    torch.mm(acts, crowd.W_enc.T, out=products)
    torch.mul(products, sharpness * crowd.of_products, out=slope)
    if crowd.of_squares:
        slope.add_(squares, alpha=sharpness * crowd.of_squares)
    count = project(slope, codes, mask)
    sums.entries += float(count.double().sum())
    sums.fired |= mask.amax(0) > 0
    residual = torch.addmm(target, codes, crowd.W_dec, alpha=-1)
    sums.error += float(residual.double().square().sum())
    upstream = residual.mul_(-2 * share)
    sums.W_dec.addmm_(codes.T, upstream)
    torch.mm(upstream, crowd.W_dec.T, out=slope)
    weight = crowd.sparsity * share
    if weight:
        norms = acts.square().sum(1)
        of_prototypes, of_tokens = codes.sum(0), codes.sum(1)
        inner = torch.linalg.vecdot(codes, products)
        sums.penalty += weight * float(
            norms.double() @ of_tokens.double() - 2 * inner.double().sum() + of_prototypes.double() @ squares.double()
        )
        slope.add_(products, alpha=-2 * weight).add_(squares, alpha=weight).add_(norms[:, None], alpha=weight)
        sums.squares.add_(of_prototypes, alpha=weight)
    slope.mul_(mask)
    slope.sub_((slope.sum(1) / count)[:, None]).mul_(mask)
    to_squares = slope.sum(0)
    sums.sharpness += crowd.of_products * float(torch.linalg.vecdot(slope, products).double().sum())
    sums.sharpness += crowd.of_squares * float(to_squares.double() @ squares.double())
    sums.squares.add_(to_squares, alpha=sharpness * crowd.of_squares)
    slope.mul_(sharpness * crowd.of_products)
    if weight:
        slope.add_(codes, alpha=-2 * weight)
    sums.W_enc.addmm_(slope.T, acts)


class _Given(Function):
    """A number whose gradients are known already; they can be taken once."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *_: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(gradient.mul_(upstream[0]) for gradient in ctx.gradients)


def crowded_losses(crowd: Crowd, acts: Acts, target: Acts) -> Losses:
    """Losses of a batch. The gradient of the sparsity term comes with that of the reconstruction: take that of their sum."""
    with torch.no_grad():
        tokens, width = acts.shape[0], crowd.W_enc.shape[0]
        sums, squares = _Sums(crowd), crowd.W_enc.square().sum(1)
        step = max(1, chunk_rows(width) // SMALLER)
        buffers = _Buffers(*(acts.new_empty(min(step, tokens), width) for _ in _Buffers._fields))
        for start in range(0, tokens, step):
            stop = min(start + step, tokens)
            _add(sums, crowd, acts[start:stop], target[start:stop], 1 / tokens, squares, buffers)
        for start in range(0, width, step):
            some = slice(start, start + step)
            sums.W_enc[some] += 2 * sums.squares[some, None] * crowd.W_enc[some]
        to_rho = torch.sigmoid(crowd.rho) * sums.sharpness
        gradients = [sums.W_enc, sums.W_dec, to_rho.to(crowd.rho.dtype)]
    value = sums.W_enc.new_tensor(sums.error / tokens)
    reconstruction = _Given.apply(value, gradients, crowd.W_enc, crowd.W_dec, crowd.rho)
    assert isinstance(reconstruction, Tensor)
    none = reconstruction.new_zeros(())
    return Losses(
        reconstruction=reconstruction,
        sparsity=none + sums.penalty,
        aux=none,
        error=sums.error,
        l0=sums.entries / tokens,
        fired=sums.fired,
    )
