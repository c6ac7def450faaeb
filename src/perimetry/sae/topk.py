"""TopK: each token keeps its k largest pre-activations.

Assumes that every token holds about k concepts. The active count is fixed (at most k), so that it cannot rise under
shift; margins, residuals and energies can.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from perimetry.axes import Latents
from perimetry.sae.affine import AffineSAE, Weights, tiny_weights
from perimetry.sae.base import CountMode, Defaults
from perimetry.sae.steps.base import Objective
from perimetry.sae.steps.select import Collector, PreActivations, TopK, top_k_rows

__all__ = ["TopKSAE"]


@final
class TopKSAE(AffineSAE):
    """Codes are ReLU of the k largest pre-activations of the token; ties go to the lowest latent."""

    architecture: ClassVar[str] = "topk"
    count_mode: ClassVar[CountMode] = "fixed"
    defaults: ClassVar[Defaults] = Defaults(aux=1 / 32)
    anneals_k: ClassVar[bool] = True

    def __init__(self, weights: Weights, *, k: int, subtract_b_dec: bool = True) -> None:
        super().__init__()
        self.hold(weights, subtract_b_dec)
        self.k = self.check_k(k)

    @override
    def fire(self, pre: Latents) -> tuple[Tensor, Tensor]:
        values, columns = top_k_rows(pre, self.k)
        return values.relu(), columns

    @override
    def settings(self) -> dict[str, Any]:
        return {"k": self.k}

    @override
    def collectors(self, pre: PreActivations, objective: Objective) -> list[Collector]:
        return [TopK(objective.k or self.k)]

    @override
    def dense_codes(self, pre: Latents, objective: Objective) -> Latents:
        ranked = pre.detach().argsort(dim=1, descending=True, stable=True)[:, : objective.k or self.k]
        mask = torch.zeros_like(pre).scatter_(1, ranked, 1.0)
        return torch.relu(pre) * mask

    @classmethod
    @override
    def rebuild(
        cls,
        weights: Weights,
        *,
        extras: Mapping[str, Tensor],
        settings: Mapping[str, Any],
        subtract_b_dec: bool | None = None,
    ) -> "TopKSAE":
        return cls(weights, k=int(settings["k"]), subtract_b_dec=True if subtract_b_dec is None else subtract_b_dec)

    @classmethod
    @override
    def tiny(cls) -> "TopKSAE":
        return cls(tiny_weights(), k=4)
