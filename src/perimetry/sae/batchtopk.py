"""BatchTopK: a batch of B tokens keeps its k * B largest pre-activations; at inference one common cut takes its place.

Assumes that the mean number of concepts a token is fixed but that tokens differ. In training the count is a budget that
rows share; at inference the cut makes each token independent of the others, and the active count is free.

With `select_by_norm` what is ranked and cut is p times the decoder norm, which matters where rows are not kept at norm 1.
When training ends the norms are folded into the encoder, so that the finished dictionary is a plain one with unit rows.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from perimetry.axes import Acts, LatentBias, Latents
from perimetry.sae.affine import AffineSAE, Weights, tiny_weights
from perimetry.sae.base import CountMode, Defaults, Options
from perimetry.sae.slots import fire_above
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Objective
from perimetry.sae.steps.select import BatchTopK, Collector, PreActivations
from perimetry.sae.threshold import budget_mask, fit_threshold, settle_threshold

__all__ = ["BatchTopKOptions", "BatchTopKSAE"]


class BatchTopKOptions(Options):
    """How latents are ranked."""

    select_by_norm: bool = False
    """Rank by p times the norm of the decoder row instead of by p; wants `unit_decoder = false`."""


@final
class _ByNorm(Collector):
    """BatchTopK of p times the decoder norm; the entries keep p."""

    def __init__(self, inner: BatchTopK, norms: LatentBias) -> None:
        self.inner, self.norms = inner, norms

    @override
    def take(self, pre: Latents) -> None:
        self.inner.take(pre * self.norms)

    @override
    def finish(self) -> Active | None:
        active = self.inner.finish()
        return None if active is None else active.replace(active.values / self.norms[active.columns])


@final
class BatchTopKSAE(AffineSAE):
    """Codes at inference are p where p exceeds the common threshold (strictly), 0 elsewhere."""

    architecture: ClassVar[str] = "batchtopk"
    count_mode: ClassVar[CountMode] = "free"
    defaults: ClassVar[Defaults] = Defaults(aux=1 / 32)
    anneals_k: ClassVar[bool] = True
    options_type: ClassVar[type[Options]] = BatchTopKOptions

    def __init__(
        self,
        weights: Weights,
        *,
        k: int,
        threshold: float = 0.0,
        select_by_norm: bool = False,
        subtract_b_dec: bool = True,
    ) -> None:
        super().__init__()
        self.hold(weights, subtract_b_dec)
        self.k = self.check_k(k)
        self.threshold = float(torch.tensor(threshold, dtype=torch.float32))
        self.select_by_norm = select_by_norm

    @override
    def cut(self) -> Tensor | None:
        return None if self.select_by_norm else self.b_enc.detach().new_tensor(self.threshold)

    @override
    def fire(self, pre: Latents) -> tuple[Tensor, Tensor]:
        if not self.select_by_norm:
            return fire_above(pre, pre.new_tensor(self.threshold))
        return fire_above(torch.where(pre * self._norms() > self.threshold, pre, 0.0), pre.new_zeros(()))

    def _norms(self) -> LatentBias:
        return self.W_dec.detach().norm(dim=1)

    @override
    def settings(self) -> dict[str, Any]:
        by_norm = {"select_by_norm": True} if self.select_by_norm else {}
        return {"k": self.k, "threshold": self.threshold, **by_norm}

    @torch.no_grad()
    @override
    def fold_scale(self, scale: float) -> None:
        super().fold_scale(scale)
        if self.select_by_norm:
            # The rows shrank, and with them everything that the threshold is compared with.
            self.threshold = float(torch.tensor(self.threshold / scale, dtype=torch.float32))

    @torch.no_grad()
    def fold_norms(self) -> None:
        """Bring the decoder rows to norm 1 and multiply the codes by the norms they had; reconstructions stay.

        A row of norm 0 stays, and its latent, which was never selected, never fires.
        """
        norms = self._norms()
        self.W_enc.mul_(norms[:, None])
        self.b_enc.mul_(norms)
        self.W_dec.div_(torch.where(norms > 0, norms, 1.0)[:, None])
        self.select_by_norm = False

    @override
    def settle(self, acts: Acts, k: int) -> dict[str, Any]:
        if self.select_by_norm:
            self.fold_norms()
        self.threshold = fit_threshold(self, acts, k)
        return settle_threshold(self.threshold)

    @override
    def collectors(self, pre: PreActivations, objective: Objective) -> list[Collector]:
        k, sample = objective.k or self.k, pre.sample()
        if not self.select_by_norm:
            return [BatchTopK(k, pre.acts.shape[0], sample)]
        norms = self._norms()
        return [_ByNorm(BatchTopK(k, pre.acts.shape[0], sample * norms), norms)]

    @override
    def dense_codes(self, pre: Latents, objective: Objective) -> Latents:
        ranked = pre.detach() * self._norms() if self.select_by_norm else pre.detach()
        return torch.relu(pre) * budget_mask(ranked, objective.k or self.k)

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
            select_by_norm=bool(settings.get("select_by_norm", False)),
            subtract_b_dec=True if subtract_b_dec is None else subtract_b_dec,
        )

    @classmethod
    @override
    def tiny(cls) -> "BatchTopKSAE":
        return cls(tiny_weights(), k=4, threshold=0.3)
