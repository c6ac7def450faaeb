"""BatchTopK: a batch of B tokens keeps its k * B largest pre-activations; at inference one common cut takes its place.

Assumes that the mean number of concepts a token is fixed but that tokens differ. In training the count is a budget that
rows share; at inference the cut makes each token independent of the others, and the active count is free.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from perimetry.axes import Acts, Latents
from perimetry.sae.affine import AffineSAE, Weights, fire_above, tiny_weights
from perimetry.sae.base import CountMode, Defaults
from perimetry.sae.steps.base import Objective
from perimetry.sae.steps.select import BatchTopK, Collector, PreActivations
from perimetry.sae.threshold import fit_threshold, settle_threshold

__all__ = ["BatchTopKSAE"]


@final
class BatchTopKSAE(AffineSAE):
    """Codes at inference are p where p exceeds the common threshold (strictly), 0 elsewhere."""

    architecture: ClassVar[str] = "batchtopk"
    count_mode: ClassVar[CountMode] = "free"
    defaults: ClassVar[Defaults] = Defaults(aux=1 / 32)

    def __init__(self, weights: Weights, *, k: int, threshold: float = 0.0, subtract_b_dec: bool = True) -> None:
        super().__init__()
        self.hold(weights, subtract_b_dec)
        self.k = self.check_k(k)
        self.threshold = float(torch.tensor(threshold, dtype=torch.float32))

    @override
    def fire(self, pre: Latents) -> tuple[Tensor, Tensor]:
        return fire_above(pre, pre.new_tensor(self.threshold))

    @override
    def settings(self) -> dict[str, Any]:
        return {"k": self.k, "threshold": self.threshold}

    @override
    def settle(self, acts: Acts, k: int) -> dict[str, Any]:
        self.threshold = fit_threshold(self, acts, k)
        return settle_threshold(self.threshold)

    @override
    def collectors(self, pre: PreActivations, objective: Objective) -> list[Collector]:
        return [BatchTopK(objective.k or self.k, pre.acts.shape[0], pre.sample())]

    @override
    def dense_codes(self, pre: Latents, objective: Objective) -> Latents:
        ranked = (
            pre.detach().reshape(-1).argsort(descending=True, stable=True)[: (objective.k or self.k) * pre.shape[0]]
        )
        mask = torch.zeros(pre.numel(), dtype=pre.dtype, device=pre.device)
        mask[ranked] = 1.0
        return torch.relu(pre) * mask.reshape(pre.shape)

    @classmethod
    @override
    def rebuild(
        cls,
        weights: Weights,
        *,
        extras: Mapping[str, Tensor],
        settings: Mapping[str, Any],
        subtract_b_dec: bool | None = None,
    ) -> "BatchTopKSAE":
        return cls(
            weights,
            k=int(settings["k"]),
            threshold=float(settings.get("threshold", 0.0)),
            subtract_b_dec=True if subtract_b_dec is None else subtract_b_dec,
        )

    @classmethod
    @override
    def tiny(cls) -> "BatchTopKSAE":
        return cls(tiny_weights(), k=4, threshold=0.3)
