"""ReLU with an L1 penalty.

Assumes that a concept is a half-space of the activations and that its amplitude is evidence for it. The penalty shrinks
amplitudes: with unit decoder rows by half its weight. The active count is free.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from perimetry.axes import Acts, Latents
from perimetry.sae.affine import AffineSAE, Weights, tiny_weights
from perimetry.sae.base import CountMode, Defaults
from perimetry.sae.slots import fire_above
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Forward, Objective, Penalty, Terms
from perimetry.sae.steps.gates import AbsoluteGate, gate_pass, much_fires, norm_pull
from perimetry.sae.steps.select import AboveCut, Collector, PreActivations

__all__ = ["StandardSAE"]


@final
class StandardSAE(AffineSAE):
    """Codes are ReLU(p); the penalty is the sum of code times decoder norm."""

    architecture: ClassVar[str] = "standard"
    count_mode: ClassVar[CountMode] = "free"
    defaults: ClassVar[Defaults] = Defaults(sparsity=0.03)

    def __init__(self, weights: Weights, *, subtract_b_dec: bool = True) -> None:
        super().__init__()
        self.hold(weights, subtract_b_dec)

    @override
    def cut(self) -> Tensor:
        return self.b_enc.detach().new_zeros(())

    @override
    def fire(self, pre: Latents) -> tuple[Tensor, Tensor]:
        return fire_above(pre, self.cut())

    @override
    def collectors(self, pre: PreActivations, objective: Objective) -> list[Collector]:
        cut = pre.b_enc.new_zeros(())
        return [] if objective.smooth is None and much_fires(pre, cut) else [AboveCut(cut)]

    @override
    def terms(self, found: list[Active], pre: PreActivations, target: Acts, objective: Objective) -> Terms | None:
        if found:
            return None
        decoder = self.W_dec.detach()
        gate = AbsoluteGate(decoder, objective.sparsity, target.shape[0])
        return gate_pass(pre, target, decoder, self.b_dec.detach(), gate)

    @override
    def own_terms(self) -> bool:
        return False

    @override
    def penalty(self, forward: Forward, objective: Objective) -> Penalty:
        active = forward.active
        norms = self.W_dec.detach().norm(dim=1)
        weight = objective.sparsity / active.tokens
        sums = active.column_sums(active.values)
        return Penalty(
            float(weight * (sums * norms).sum()),
            weight * norms[active.columns],
            {},
            norm_pull(weight * sums, norms),
        )

    @override
    def dense_codes(self, pre: Latents, objective: Objective) -> Latents:
        return torch.relu(pre)

    @override
    def dense_penalty(self, pre: Latents, codes: Latents, objective: Objective) -> Tensor:
        return objective.sparsity * (codes * self.W_dec.norm(dim=1)).sum(1).mean()

    @classmethod
    @override
    def rebuild(
        cls,
        weights: Weights,
        *,
        extras: Mapping[str, Tensor],
        settings: Mapping[str, Any],
        subtract_b_dec: bool | None = None,
    ) -> "StandardSAE":
        return cls(weights, subtract_b_dec=True if subtract_b_dec is None else subtract_b_dec)

    @classmethod
    @override
    def tiny(cls) -> "StandardSAE":
        return cls(tiny_weights())
