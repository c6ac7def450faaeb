"""Gates that compare p times a norm of the decoder row, made of those that compare p; the entries keep p.

With u the norms, a latent fires by p u instead of p. What a gate keeps of p u is divided by u again, so that codes, and the
gradients towards them, are those of p. A latent with u = 0 never fires.
"""

from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from perimetry.axes import Decoder, LatentBias, Latents
from perimetry.sae.jumprelu import count_loss
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Forward, Objective, Penalty
from perimetry.sae.steps.gates import CountGate, Gate
from perimetry.sae.steps.products import sampled
from perimetry.sae.steps.select import Collector, Cut

__all__ = ["ByNorm", "CountByNorm", "CutByNorm", "SizeGate", "divisor", "per_norm"]

ROUNDING = 1e-6
"""Share by which a cut over u is lowered, so that no entry is lost to the rounding of p times u against that of the cut."""
STEEP = 4.0
"""Cuts over u beyond this many medians are lowered to it: a rarely used latent of tiny norm would blur all others' cuts."""


def divisor(norms: LatentBias) -> LatentBias:
    """The norms, with the smallest positive number in the place of 0.

    >>> bool(divisor(torch.zeros(1)) > 0)
    True
    """
    return norms.clamp(min=torch.finfo(norms.dtype).tiny)


def per_norm(cut: Tensor, norms: LatentBias) -> LatentBias:
    """The cut on p that is `cut` on p u: infinite where u is 0.

    >>> per_norm(torch.tensor(3.0), torch.tensor([2.0, 0.0])).tolist()
    [1.5, inf]
    """
    return torch.where(norms > 0, cut / divisor(norms), torch.inf)


class ByNorm(Collector):
    """Entries that another collector keeps of p u, with the values p."""

    def __init__(self, inner: Collector, norms: LatentBias) -> None:
        self.inner, self.norms = inner, norms

    @override
    def take(self, pre: Latents) -> None:
        self.inner.take(pre * self.norms)

    @override
    def finish(self) -> Active | None:
        return self._plain(self.inner.finish())

    @override
    def edges(self) -> tuple[Tensor, ...]:
        return tuple(per_norm(edge, self.norms) for edge in self.inner.edges())

    def _plain(self, active: Active | None) -> Active | None:
        return None if active is None else active.replace(active.values / divisor(self.norms)[active.columns])


@final
class CutByNorm(ByNorm, Cut):
    """The same of a collector that keeps entries by their value alone."""

    inner: Cut

    def __init__(self, inner: Cut, norms: LatentBias) -> None:
        super().__init__(inner, norms)

    @override
    def floor(self) -> Tensor:
        floor = self.inner.floor().to(self.norms) / divisor(self.norms)
        floor = floor - ROUNDING * floor.abs()
        return floor.clamp(max=max(0.0, STEEP * float(floor.median())))

    @override
    def of_entries(self, active: Active) -> Active | None:
        return self._plain(self.inner.of_entries(active.replace(active.values * self.norms[active.columns])))


@final
class SizeGate(Gate):
    """ReLU with a penalty on the sum of p u; `towards` is the gradient of each u with respect to its decoder row."""

    def __init__(self, norms: LatentBias, towards: Decoder, weight: float, tokens: int) -> None:
        self.cut = per_norm(norms.new_zeros(()), norms)
        self.norms, self.directions, self.weight = norms, towards, weight / tokens
        self.sums = torch.zeros_like(norms)

    @override
    def gather(self, pre: Latents, codes: Latents, counts: Tensor, towards: Latents) -> None:
        self.sums += codes.sum(0)
        towards += self.weight * self.norms

    @override
    def penalty(self, l0: float) -> Penalty:
        return self._of_sums(None)

    def of_entries(self, active: Active) -> Penalty:
        """The penalty of a batch whose entries are known."""
        self.sums = active.column_sums(active.values)
        return self._of_sums(self.weight * self.norms[active.columns])

    def _of_sums(self, values: Tensor | None) -> Penalty:
        loss = self.weight * float((self.sums * self.norms).sum())
        return Penalty(loss, values, {"W_dec": self.weight * self.sums[:, None] * self.directions})


@final
class CountByNorm(Gate):
    """A penalty on the active count whose cut is one of p u."""

    def __init__(self, theta: LatentBias, norms: LatentBias, objective: Objective, mode: str, tokens: int) -> None:
        self.cut = per_norm(theta, norms)
        self.inner, self.norms = CountGate(theta, objective, mode, tokens), norms

    @override
    def gather(self, pre: Latents, codes: Latents, counts: Tensor, towards: Latents) -> None:
        # A step in p u moves the code by p, which is 1 / u of what it moves p u by.
        self.inner.gather(pre * self.norms, codes, counts, towards / divisor(self.norms))

    @override
    def penalty(self, l0: float) -> Penalty:
        return self.inner.penalty(l0)

    def of_entries(self, forward: Forward, window: Active, decoder: Decoder) -> Penalty:
        """The penalty of a batch whose entries are known; `window` are those near the cut, firing or not."""
        inner, bandwidth = self.inner, self.inner.objective.bandwidth
        loss, slopes = count_loss(forward.active, inner.objective, inner.mode)
        through = sampled(window, forward.upstream, decoder)
        if forward.smooth is not None:
            through = through + forward.smooth.towards(window)
        inside = window.column_sums(slopes[window.rows()])
        towards = inner.cut / divisor(self.norms) * window.column_sums(through) + inside
        return Penalty(loss, None, {"threshold": -towards / bandwidth})
