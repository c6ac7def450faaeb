"""The step of JumpReLU with a tanh penalty, by dense chunks of rows: its window is so wide that nothing in it is sparse.

With u the decoder norms, theta the cuts and T tokens, the sparsity term is the mean over tokens of

    weight * sum tanh(4 z u)  +  3e-6 * sum ReLU(theta - p) u

The first part saturates, so that strong concepts are not shrunk; the second pulls latents that never fire back. All
gradients but those of the jump itself are plain ones and reach every parameter; the cut gets, through the codes, the
derivative of a step that is smeared over the window.
"""

from typing import final

import torch
from torch import Tensor

from perimetry.axes import Acts, Decoder, LatentBias, Latents, ModelBias
from perimetry.sae.steps.base import Objective, Penalty, SmoothTerm, Terms
from perimetry.sae.steps.select import PreActivations
from perimetry.sae.steps.tallies import Tally, nothing_listed

__all__ = ["PULL", "STEEPNESS", "TanhPass", "dense_tanh"]

STEEPNESS = 4.0
"""What code times decoder norm is multiplied with inside the tanh."""
PULL = 3e-6
"""Weight of the term that pulls silent latents towards their cuts."""


def dense_tanh(pre: Latents, codes: Latents, norms: LatentBias, theta: LatentBias, weight: float) -> Tensor:
    """The sparsity term by autograd: the reference for `TanhPass`."""
    size = torch.tanh(STEEPNESS * codes * norms).sum(1).mean()
    return weight * size + PULL * (torch.relu(theta - pre) * norms).sum(1).mean()


@final
class TanhPass:
    """One pass over the encoder product that gathers losses and gradients chunk by chunk."""

    def __init__(self, decoder: Decoder, theta: LatentBias, objective: Objective, smooth: SmoothTerm | None) -> None:
        self.decoder, self.theta, self.objective, self.smooth = decoder, theta, objective, smooth
        self.norms = decoder.norm(dim=1)
        self.towards = {
            "W_dec": torch.zeros_like(decoder),
            "W_enc": torch.zeros_like(decoder),
            "b_enc": torch.zeros_like(theta),
            "theta": torch.zeros_like(theta),
            "norms": torch.zeros_like(theta),
        }
        self.sparsity = 0.0
        self.tally = Tally(decoder.shape[0], decoder.device)

    def run(self, pre: PreActivations, target: Acts, b_dec: ModelBias) -> Terms:
        """All terms of a batch."""
        tokens = target.shape[0]
        residual, upstream = torch.empty_like(target), torch.empty_like(target)
        for start, chunk in pre.chunks():
            part = slice(start, start + chunk.shape[0])
            fires = chunk > self.theta
            codes = chunk * fires
            self.tally.add(codes, fires)
            residual[part] = target[part] - codes @ self.decoder - b_dec
            upstream[part] = residual[part] * (-2 / tokens)
            towards = self._codes(chunk, codes, upstream[part] @ self.decoder.T, start, tokens)
            self.towards["W_dec"].addmm_(codes.T, upstream[part])
            product = self._product(chunk, fires, towards, tokens)
            self.towards["W_enc"].addmm_(product.T, pre.acts[part])
            self.towards["b_enc"] += product.sum(0)
        found = self.towards
        direction = self.decoder / self.norms[:, None].clamp(min=torch.finfo(self.norms.dtype).tiny)
        gradients = {"threshold": found["theta"], "W_dec": found["norms"][:, None] * direction}
        return Terms(
            active=nothing_listed(tokens, self.decoder.shape[0], target),
            residual=residual,
            reconstruction=float(residual.square().sum()) / tokens,
            upstream=upstream,
            W_dec=found["W_dec"],
            W_enc=found["W_enc"],
            b_enc=found["b_enc"],
            penalty=Penalty(self.sparsity, None, gradients),
            further=0.0 if self.smooth is None else self.smooth.loss,
            summary=self.tally.summary(),
        )

    def _codes(self, pre: Latents, codes: Latents, towards: Latents, start: int, tokens: int) -> Latents:
        """Gradient with respect to the codes; adds the tanh term and what it says of norms and cuts."""
        weight, width = self.objective.sparsity / tokens, self.objective.bandwidth
        size = torch.tanh(STEEPNESS * codes * self.norms)
        self.sparsity += weight * float(size.sum())
        slope = size.square_().neg_().add_(1).mul_(STEEPNESS * weight)
        self.towards["norms"] += (slope * codes).sum(0)
        towards = towards.addcmul_(slope, self.norms)
        if self.smooth is not None:
            towards[:, : self.smooth.high] += self.smooth.block(start, start + pre.shape[0])
        inside = (pre - self.theta).abs() < width / 2
        self.towards["theta"] -= self.theta / width * (towards * inside).sum(0)
        return towards

    def _product(self, pre: Latents, fires: Tensor, towards: Latents, tokens: int) -> Latents:
        """Gradient with respect to the pre-activations; adds the term of the silent latents."""
        weight = PULL / tokens
        missing = torch.relu(self.theta - pre)
        sums = missing.sum(0)
        self.sparsity += weight * float((sums * self.norms).sum())
        self.towards["norms"] += weight * sums
        below = (missing > 0).to(pre.dtype)
        self.towards["theta"] += weight * below.sum(0) * self.norms
        return towards.mul_(fires).addcmul_(below, self.norms, value=-weight)
