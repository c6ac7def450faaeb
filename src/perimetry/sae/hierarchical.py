"""HierarchicalTopK: TopK whose every prefix reconstructs, so that one dictionary serves any smaller count.

Assumes that the importance of a concept for a token is its magnitude there. The active count is fixed (at most k), at
inference at most any k' <= k that is asked for.

With the k active values of a token in descending order (equal ones by latent) and x_j the reconstruction by the first j,
the loss is the mean over j of the squared error of x_j (arXiv 2505.24473). With residuals r_j, entry i reaches the loss
through the sum of r_j over j >= i, so that a running sum over the ranks gives every gradient.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from perimetry.axes import Acts, Decoder, Latents
from perimetry.errors import ConfigError
from perimetry.sae.affine import AffineSAE, Weights, tiny_weights
from perimetry.sae.base import CountMode, Defaults
from perimetry.sae.steps import products
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Objective, Penalty, Terms
from perimetry.sae.steps.products import transposed
from perimetry.sae.steps.select import Collector, PreActivations, TopK, top_k_rows
from perimetry.sae.terms.smooth import smooth_term

__all__ = ["HierarchicalTopKSAE", "by_rank"]


class ByRank(NamedTuple):
    """The entries of each token in descending order, padded."""

    values: Float[Tensor, "token k"]
    """Codes; 0 is padding."""
    columns: Int[Tensor, "token k"]
    """Latents; 0 where padded."""
    entries: Int[Tensor, "token k"]
    """Place of each in the row order of the matrix; -1 where padded."""


def by_rank(active: Active, k: int) -> ByRank:
    """Entries of at most `k` a token by value descending, equal ones by latent.

    >>> by_rank(Active(torch.tensor([0, 2]), torch.tensor([3, 1]), torch.tensor([1.0, 2.0]), 4), 3).columns
    tensor([[1, 3, 0]])
    """
    tokens, rows = active.tokens, active.rows()
    place = torch.arange(active.entries, device=rows.device) - active.offsets[rows]
    values = active.values.new_zeros(tokens, k)
    columns = torch.full((tokens, k), active.width, device=rows.device)
    entries = torch.full((tokens, k), -1, device=rows.device)
    values[rows, place], columns[rows, place] = active.values, active.columns
    entries[rows, place] = torch.arange(active.entries, device=rows.device)
    order = columns.argsort(dim=1)
    order = order.gather(1, values.gather(1, order).argsort(dim=1, descending=True, stable=True))
    values, columns, entries = (x.gather(1, order) for x in (values, columns, entries))
    return ByRank(values, torch.where(entries < 0, 0, columns), entries)


class _Chunk(NamedTuple):
    residual: Acts
    sums: Acts
    delta: Float[Tensor, "token k"]
    upstream: Float[Tensor, "token k d_model"]
    loss: float


def _chunk(values: Tensor, columns: Tensor, start: Acts, decoder: Decoder, factor: float) -> _Chunk:
    """Residuals of all prefixes, their sums from each rank on, and what reaches each entry; `factor` weighs the sums."""
    tokens, k = values.shape
    rows = decoder[columns.reshape(-1)].view(tokens, k, -1)
    upstream = torch.empty_like(rows)
    residual, loss = start, 0.0
    for rank in range(k):
        residual = torch.addcmul(residual, rows[:, rank], values[:, rank, None], value=-1)
        upstream[:, rank] = residual
        loss += float(residual.square().sum())
    for rank in range(k - 2, -1, -1):
        upstream[:, rank] += upstream[:, rank + 1]
    upstream *= factor
    delta = torch.linalg.vecdot(rows, upstream)
    return _Chunk(residual, upstream[:, 0].clone(), delta, upstream, loss)


@final
class HierarchicalTopKSAE(AffineSAE):
    """Codes are ReLU of the k largest pre-activations of the token; ties go to the lowest latent."""

    architecture: ClassVar[str] = "hierarchical"
    count_mode: ClassVar[CountMode] = "fixed"
    defaults: ClassVar[Defaults] = Defaults(aux=1 / 32)
    anneals_k: ClassVar[bool] = True

    def __init__(self, weights: Weights, *, k: int, subtract_b_dec: bool = True) -> None:
        super().__init__()
        self.hold(weights, subtract_b_dec)
        self.k = self.check_k(k)

    def truncated(self, k: int) -> "HierarchicalTopKSAE":
        """The same dictionary with at most `k` active concepts a token; shares the weights. Errors: `ConfigError`."""
        if not 1 <= k <= self.k:
            raise ConfigError(
                f"k = {k} for a dictionary that was trained for every count up to {self.k}; give a k from 1 to {self.k}"
            )
        weights = Weights(self.W_enc.detach(), self.W_dec.detach(), self.b_enc.detach(), self.b_dec.detach())
        return HierarchicalTopKSAE(weights, k=k, subtract_b_dec=self.subtract_b_dec)

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
    def terms(self, found: list[Active], pre: PreActivations, target: Acts, objective: Objective) -> Terms:
        active, decoder, tokens, k = found[0], self.W_dec.detach(), target.shape[0], objective.k or self.k
        ranked = by_rank(active, k)
        offset = target - self.b_dec.detach()
        residual, upstream = torch.empty_like(offset), torch.empty_like(offset)
        towards, delta, loss = torch.zeros_like(decoder), active.values.new_empty(active.entries), 0.0
        step = max(1, products.CHUNK_ELEMENTS // (8 * k * self.d_model))
        for start in range(0, tokens, step):
            part = slice(start, start + step)
            values, columns, entries = ranked.values[part], ranked.columns[part], ranked.entries[part]
            chunk = _chunk(values, columns, offset[part], decoder, -2 / (k * tokens))
            residual[part], upstream[part], loss = chunk.residual, chunk.sums, loss + chunk.loss
            real = entries >= 0
            delta[entries[real]] = chunk.delta[real]
            # Every entry is a row of its own here, for each has an upstream gradient of its own.
            latents, places = columns.reshape(-1).unique(return_inverse=True)
            offsets = torch.arange(values.numel() + 1, device=values.device)
            alone = Active(offsets, places, values.reshape(-1), latents.numel())
            towards[latents] += transposed(alone, None, chunk.upstream.view(values.numel(), -1))
        smooth = smooth_term(active, objective.smooth)
        if smooth is not None:
            delta = delta + smooth.towards(active)
        codes = active.replace(delta)
        return Terms(
            active=active,
            residual=residual,
            reconstruction=loss / (k * tokens),
            upstream=upstream,
            W_dec=towards,
            W_enc=transposed(codes, None, pre.acts),
            b_enc=codes.column_sums(delta),
            penalty=Penalty(0.0, None, {}),
            further=0.0 if smooth is None else smooth.loss,
        )

    @override
    def dense_codes(self, pre: Latents, objective: Objective) -> Latents:
        ranked = pre.detach().argsort(dim=1, descending=True, stable=True)[:, : objective.k or self.k]
        return torch.relu(pre) * torch.zeros_like(pre).scatter_(1, ranked, 1.0)

    @override
    def dense_reconstruction_loss(self, target: Acts, codes: Latents, residual: Acts, objective: Objective) -> Tensor:
        order = codes.detach().argsort(dim=1, descending=True, stable=True)[:, : objective.k or self.k]
        parts = codes.gather(1, order)[:, :, None] * self.W_dec[order]
        prefixes = parts.cumsum(1) + self.b_dec
        return (target[:, None] - prefixes).square().sum(2).mean()

    @classmethod
    @override
    def rebuild(
        cls,
        weights: Weights,
        *,
        extras: Mapping[str, Tensor],
        settings: Mapping[str, Any],
        subtract_b_dec: bool | None = None,
    ) -> "HierarchicalTopKSAE":
        return cls(weights, k=int(settings["k"]), subtract_b_dec=True if subtract_b_dec is None else subtract_b_dec)

    @classmethod
    @override
    def tiny(cls) -> "HierarchicalTopKSAE":
        return cls(tiny_weights(), k=4)
