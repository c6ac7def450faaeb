"""Gated: one threshold decides whether a latent fires, a second affine map of the same product says how strongly.

Assumes that detecting a concept and measuring it are separate tasks, so that the penalty on the gate need not shrink the
amplitude. The active count is free.

With q = W_enc (x - b_dec): the gate is pi = q + b_gate, the code 1[pi > 0] ReLU(exp(r_mag) q + b_mag). The loss is the
squared error, plus the weighted sum of ReLU(pi) times decoder norm, plus the squared error of what the gate alone would
write, towards which decoder and `b_dec` are constants (Rajamanoharan et al., arXiv 2404.16014). The parameter `b_enc` is
b_gate. The auxiliary loss, where it is asked for, revives by the gate.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from perimetry.axes import Acts, LatentBias, Latents, ModelBias
from perimetry.errors import WidthMismatch
from perimetry.sae.affine import AffineSAE, Weights, tiny_weights
from perimetry.sae.base import CountMode, Defaults
from perimetry.sae.slots import fire_above
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Objective, Penalty, Plain, Terms
from perimetry.sae.steps.doors import Doors, open_pass
from perimetry.sae.steps.gates import much_fires, norm_pull
from perimetry.sae.steps.products import decode, sampled, square_sum
from perimetry.sae.steps.select import AboveCut, Collector, PreActivations
from perimetry.sae.terms.smooth import smooth_term

__all__ = ["GatedSAE"]


@final
class GatedSAE(AffineSAE):
    """Codes are the magnitude where both gate and magnitude are positive (strictly), 0 elsewhere."""

    architecture: ClassVar[str] = "gated"
    count_mode: ClassVar[CountMode] = "free"
    defaults: ClassVar[Defaults] = Defaults(beta1=0.0, sparsity=0.024)

    def __init__(
        self,
        weights: Weights,
        *,
        r_mag: LatentBias | None = None,
        b_mag: LatentBias | None = None,
        subtract_b_dec: bool = True,
    ) -> None:
        super().__init__()
        self.hold(weights, subtract_b_dec)
        zeros = torch.zeros_like(weights.b_enc)
        given = {"r_mag": zeros if r_mag is None else r_mag, "b_mag": zeros.clone() if b_mag is None else b_mag}
        for name, tensor in given.items():
            if tensor.shape != weights.b_enc.shape:
                raise WidthMismatch(
                    f"{name} has shape {tuple(tensor.shape)}, the dictionary has {self.d_sae} latents; give one number a "
                    "latent"
                )
        self.r_mag = nn.Parameter(given["r_mag"])
        self.b_mag = nn.Parameter(given["b_mag"])

    @override
    def fire(self, pre: Latents) -> tuple[Tensor, Tensor]:
        magnitude = self.r_mag.detach().exp() * (pre - self.b_enc.detach()) + self.b_mag.detach()
        return fire_above(torch.where(pre > 0, magnitude, 0.0), pre.new_zeros(()))

    @override
    def extras(self) -> dict[str, Tensor]:
        return {"r_mag": self.r_mag.detach(), "b_mag": self.b_mag.detach()}

    @override
    def collectors(self, pre: PreActivations, objective: Objective) -> list[Collector]:
        cut = pre.b_enc.new_zeros(())
        return [] if objective.smooth is None and much_fires(pre, cut) else [AboveCut(cut)]

    def _doors(self) -> Doors:
        growth = self.r_mag.detach().exp()
        return Doors(self.W_dec.detach(), self.b_dec.detach(), self.b_enc.detach(), growth, self.b_mag.detach())

    @override
    def terms(self, found: list[Active], pre: PreActivations, target: Acts, objective: Objective) -> Terms | None:
        return None if found else open_pass(pre, target, self._doors(), objective.sparsity)

    @override
    def own_terms(self) -> bool:
        return False

    @override
    def plain(self, found: list[Active], target: Acts, b_dec: ModelBias, objective: Objective) -> Plain:
        gate, decoder, tokens = found[0], self.W_dec.detach(), target.shape[0]
        offset = target - b_dec
        product = gate.values - self.b_enc.detach()[gate.columns]
        growth = self.r_mag.detach().exp()[gate.columns]
        magnitude = growth * product + self.b_mag.detach()[gate.columns]
        fires = magnitude > 0
        active = gate.replace(magnitude).keep(fires)
        upstream = offset - decode(active, decoder)
        error = square_sum(upstream)
        upstream *= -2 / tokens
        delta = sampled(active, upstream, decoder)
        smooth = smooth_term(active, objective.smooth)
        if smooth is not None:
            delta = delta + smooth.towards(active)

        attempt = offset.sub_(decode(gate, decoder))
        missed = square_sum(attempt)
        norms = decoder.norm(dim=1)
        weight = objective.sparsity / tokens
        towards_gate = sampled(gate, attempt.mul_(-2 / tokens), decoder) + weight * norms[gate.columns]
        through = delta * growth[fires]
        towards_product = towards_gate.clone()
        towards_product[fires] += through
        sums = gate.column_sums(gate.values)
        return Plain(
            active=gate.replace(torch.where(fires, magnitude, 0.0)),
            delta=towards_product,
            upstream=upstream,
            error=error,
            penalty=Penalty(
                float(weight * (sums * norms).sum()),
                None,
                {
                    # The common step counts what reaches the product; b_gate gets the part of the gate alone.
                    "b_enc": -active.column_sums(through),
                    "b_mag": active.column_sums(delta),
                    "r_mag": active.column_sums(through * product[fires]),
                },
                norm_pull(weight * sums, norms),
            ),
            further=missed / tokens + (0.0 if smooth is None else smooth.loss),
            fires=active,
        )

    @override
    def dense_codes(self, pre: Latents, objective: Objective) -> Latents:
        magnitude = torch.exp(self.r_mag) * (pre - self.b_enc) + self.b_mag
        return torch.relu(magnitude) * (pre > 0)

    @override
    def dense_penalty(self, pre: Latents, codes: Latents, objective: Objective) -> Tensor:
        return objective.sparsity * (torch.relu(pre) * self.W_dec.norm(dim=1)).sum(1).mean()

    @override
    def dense_further(self, target: Acts, pre: Latents, codes: Latents, objective: Objective) -> Tensor:
        attempt = target - torch.relu(pre) @ self.W_dec.detach() - self.b_dec.detach()
        return attempt.square().sum(1).mean() + super().dense_further(target, pre, codes, objective)

    @classmethod
    @override
    def rebuild(
        cls,
        weights: Weights,
        *,
        extras: Mapping[str, Tensor],
        settings: Mapping[str, Any],
        subtract_b_dec: bool | None = None,
    ) -> "GatedSAE":
        return cls(
            weights,
            r_mag=extras.get("r_mag"),
            b_mag=extras.get("b_mag"),
            subtract_b_dec=True if subtract_b_dec is None else subtract_b_dec,
        )

    @classmethod
    @override
    def tiny(cls) -> "GatedSAE":
        return cls(tiny_weights(), r_mag=torch.linspace(-0.5, 0.5, 32), b_mag=torch.linspace(0.2, -0.3, 32))
