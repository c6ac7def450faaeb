"""The step where much fires: by dense chunks of rows, for the architectures whose gate is a cut.

A young ReLU or JumpReLU dictionary fires thousands of latents a token. Five dense products by chunks are faster there
than gathers by entries, and no (token, latent) matrix of the whole batch exists: what a penalty needs is summed up on the
way, and weighed when the counts of the batch are known.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from perimetry.axes import Acts, Decoder, LatentBias, Latents, ModelBias
from perimetry.sae.steps import products, room
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Objective, Penalty, Summary, Terms
from perimetry.sae.steps.select import PreActivations

__all__ = ["AbsoluteGate", "CountGate", "Gate", "gate_pass", "lean_chunks", "much_fires", "norm_pull"]


BUFFERS = 4
"""Matrices as large as a chunk of pre-activations that a pass holds besides; chunks are smaller by as much."""


def lean_chunks(pre: PreActivations) -> Iterator[tuple[int, Latents]]:
    """First row and pre-activations of each chunk, for a pass that holds several matrices of the size of a chunk."""
    tokens, width = pre.acts.shape[0], pre.W_enc.shape[0]
    buffer: Tensor | None = None
    for start, stop in products.row_chunks(tokens, BUFFERS * width):
        if buffer is None:
            buffer = pre.acts.new_empty(stop - start, width)
        out = buffer[: stop - start]
        torch.addmm(pre.b_enc, pre.acts[start:stop], pre.W_enc.T, out=out)
        yield start, out


def norm_pull(weights: LatentBias, norms: LatentBias) -> LatentBias:
    """What `Penalty.pull` is for `weights` times the norms of the decoder rows; a row of norm 0 has no direction.

    >>> norm_pull(torch.tensor([3.0, 3.0]), torch.tensor([2.0, 0.0])).tolist()
    [1.5, 0.0]
    """
    tiny = torch.finfo(norms.dtype).tiny
    return torch.where(norms > tiny, weights / norms.clamp(min=tiny), 0.0)


class Gate(ABC):
    """A cut, and the penalty that goes with it, gathered chunk by chunk."""

    cut: Tensor

    @abstractmethod
    def gather(self, pre: Latents, codes: Latents, counts: Tensor, towards: Latents) -> None:
        """Take in a chunk. `towards` is the gradient with respect to the codes, fired or not; the penalty's is added to it."""

    @abstractmethod
    def penalty(self, l0: float) -> Penalty:
        """The term of the whole batch; gradients with respect to the codes have been added already."""


@final
class AbsoluteGate(Gate):
    """ReLU with an L1 penalty weighed by decoder norms."""

    def __init__(self, decoder: Decoder, weight: float, tokens: int) -> None:
        self.cut = decoder.new_zeros(())
        self.weight, self.norms = weight / tokens, decoder.norm(dim=1)
        self.sums = torch.zeros_like(self.norms)

    @override
    def gather(self, pre: Latents, codes: Latents, counts: Tensor, towards: Latents) -> None:
        self.sums += codes.sum(0)
        towards += self.weight * self.norms

    @override
    def penalty(self, l0: float) -> Penalty:
        loss = self.weight * float((self.sums * self.norms).sum())
        return Penalty(loss, None, {}, norm_pull(self.weight * self.sums, self.norms))


@final
class CountGate(Gate):
    """A cut a latent with a penalty on the active count, learned through the straight-through estimate."""

    def __init__(self, theta: LatentBias, objective: Objective, mode: str, tokens: int) -> None:
        self.cut, self.objective, self.mode, self.tokens = theta, objective, mode, tokens
        self.through, self.inside = torch.zeros_like(theta), torch.zeros_like(theta)
        self.loss = 0.0

    @override
    def gather(self, pre: Latents, codes: Latents, counts: Tensor, towards: Latents) -> None:
        window = ((pre - self.cut).abs() < self.objective.bandwidth / 2).to(pre.dtype)
        self.through += (towards * window).sum(0)
        if self.mode != "token":
            self.inside += window.sum(0)
            return
        weight, target = self.objective.sparsity, self.objective.target_l0
        excess = counts - target
        self.loss += 2 * weight / (target * self.tokens) * float(excess.square().sum())
        self.inside += (4 * weight / (target * self.tokens) * excess) @ window

    @override
    def penalty(self, l0: float) -> Penalty:
        weight, target, slope, loss = self.objective.sparsity, self.objective.target_l0, 1.0, self.loss
        if self.mode == "target":
            excess = l0 / target - 1
            loss, slope = weight * excess**2, 2 * weight * excess / (target * self.tokens)
        elif self.mode == "step":
            loss, slope = weight * l0, weight / self.tokens
        towards = -(self.cut * self.through + slope * self.inside) / self.objective.bandwidth
        return Penalty(loss, None, {"threshold": towards})


def much_fires(pre: PreActivations, cut: Tensor) -> bool:
    """Whether the entries above `cut`, as a few rows show them, are too many for gathers."""
    return float((pre.sample() > cut).float().mean()) > products.dense_above()


def gate_pass(pre: PreActivations, target: Acts, decoder: Decoder, b_dec: ModelBias, gate: Gate) -> Terms:
    """All terms of a batch and the gradients of the weights."""
    tokens = target.shape[0]
    upstream = torch.empty_like(target)
    W_dec, W_enc, b_enc = room.zeros("W_dec", decoder), room.zeros("W_enc", pre.W_enc), torch.zeros_like(pre.b_enc)
    fired = torch.zeros(decoder.shape[0], dtype=torch.bool, device=decoder.device)
    entries, error, smallest = 0, 0.0, float("inf")
    positive = gate.cut.clamp(min=0)
    for start, chunk in lean_chunks(pre):
        part = slice(start, start + chunk.shape[0])
        fires = chunk > positive
        codes = chunk * fires
        residual = target[part] - codes @ decoder - b_dec
        error += products.square_sum(residual)
        upstream[part] = residual * (-2 / tokens)
        towards = upstream[part] @ decoder.T
        counts = fires.sum(1)
        gate.gather(chunk, codes, counts.to(chunk.dtype), towards)
        W_dec.addmm_(codes.T, upstream[part])
        towards *= fires
        W_enc.addmm_(towards.T, pre.acts[part])
        b_enc += towards.sum(0)
        entries += int(counts.sum())
        fired |= fires.any(0)
        smallest = min(smallest, float(codes.masked_fill_(~fires, torch.inf).min()))
    l0 = entries / tokens
    nothing = Active(
        torch.zeros(tokens + 1, dtype=torch.int64, device=target.device),
        torch.zeros(0, dtype=torch.int64, device=target.device),
        target.new_zeros(0),
        decoder.shape[0],
    )
    return Terms(
        active=nothing,
        residual=upstream * (-tokens / 2),
        reconstruction=error / tokens,
        upstream=upstream,
        W_dec=W_dec,
        W_enc=W_enc,
        b_enc=b_enc,
        penalty=gate.penalty(l0),
        summary=Summary(l0, fired, smallest if entries else None),
    )
