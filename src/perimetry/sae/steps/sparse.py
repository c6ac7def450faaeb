"""The exact sparse training step: the same gradients as dense autograd, at the cost of what fires.

Only the encoder product is dense, and of it one chunk of rows exists at a time. Everything after the selection is a
product of a sparse matrix. Gradients are written by hand:

* towards a code: the inner product of its decoder row with the upstream gradient, at active entries only;
* towards the decoder and the encoder: sums over the tokens of each latent;
* towards `b_dec`: the sum of the upstream gradients, less what reaches it through the encoder (beta = 1).

A selected latent whose value is 0 is not active and gets no gradient.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from perimetry.axes import Acts
from perimetry.sae.affine import AffineSAE
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Forward, Objective, StepResult, Terms
from perimetry.sae.steps.products import decode, sampled, transposed
from perimetry.sae.steps.select import Collector, PreActivations, TopK, collect
from perimetry.sae.terms.smooth import smooth_term

__all__ = ["aux_count", "aux_weight", "sparse_step"]


class _Aux(NamedTuple):
    loss: float
    active: Active
    upstream: Acts


def aux_count(d_model: int, n_dead: int) -> int:
    """Dead latents that each token may use to explain the residual: half of `d_model`, at most those there are.

    >>> aux_count(576, 1000), aux_count(576, 5)
    (288, 5)
    """
    return min(max(1, d_model // 2), n_dead)


def aux_weight(weight: float, d_model: int, n_dead: int) -> float:
    """Weight of the auxiliary term: it fades in until half of `d_model` latents are dead.

    >>> aux_weight(1 / 32, 576, 144) == 1 / 64
    True
    """
    return weight * min(1.0, 2 * n_dead / d_model)


def _aux(active: Active, residual: Acts, decoder: Tensor, weight: float) -> _Aux | None:
    """The dead latents' attempt at the residual, which is a constant here, over the residual's variance."""
    variance = float((residual - residual.mean(0)).square().sum()) / residual.shape[0]
    if variance == 0:
        return None
    error = decode(active, decoder) - residual
    tokens = residual.shape[0]
    loss = weight * float(error.square().sum()) / tokens / variance
    return _Aux(loss, active, error.mul_(2 * weight / (tokens * variance)))


class _Gradients:
    """The four gradients, gathered term by term."""

    def __init__(self, sae: AffineSAE, centred: Acts, terms: Terms) -> None:
        self.sae, self.centred = sae, centred
        self.decoder, self.encoder, self.bias = terms.W_dec, terms.W_enc, terms.b_enc

    def dead(self, aux: _Aux, among: Tensor) -> None:
        order = aux.active.by_column()
        delta = sampled(aux.active, aux.upstream, self.sae.W_dec.detach()[among])
        codes = aux.active.replace(delta)
        self.decoder.index_add_(0, among, transposed(aux.active, order, aux.upstream))
        self.encoder.index_add_(0, among, transposed(codes, order, self.centred))
        self.bias.index_add_(0, among, codes.column_sums(delta))

    def finish(self, upstream: Acts) -> dict[str, Tensor]:
        b_dec = upstream.sum(0)
        if self.sae.subtract_b_dec:
            b_dec = b_dec - self.bias @ self.sae.W_enc.detach()
        return {"W_enc": self.encoder, "W_dec": self.decoder, "b_enc": self.bias, "b_dec": b_dec}


def _collect(
    sae: AffineSAE, pre: PreActivations, objective: Objective, dead: Tensor
) -> tuple[list[Active], Active | None]:
    collectors: list[Collector] = sae.collectors(pre, objective)
    if not dead.numel():
        # An architecture that makes its own pass over the product asks for none here.
        return (collect(pre, collectors) if collectors else []), None
    found = collect(pre, [*collectors, TopK(aux_count(sae.d_model, dead.numel()), dead)])
    return found[:-1], found[-1]


def _plain(sae: AffineSAE, found: list[Active], centred: Acts, target: Acts, objective: Objective) -> Terms:
    """Squared error of the whole reconstruction, plus the architecture's penalty."""
    active, decoder, tokens = found[0], sae.W_dec.detach(), target.shape[0]
    residual = target - decode(active, decoder) - sae.b_dec.detach()
    upstream = residual * (-2 / tokens)
    delta = sampled(active, upstream, decoder)
    smooth = smooth_term(active, objective.smooth)
    if smooth is not None:
        delta = delta + smooth.towards(active)
    penalty = sae.penalty(Forward(active, found[1] if len(found) > 1 else None, upstream, smooth), objective)
    if penalty.values is not None:
        delta = delta + penalty.values
    order, codes = active.by_column(), active.replace(delta)
    return Terms(
        active=active,
        residual=residual,
        reconstruction=float(residual.square().sum()) / tokens,
        upstream=upstream,
        W_dec=transposed(active, order, upstream),
        W_enc=transposed(codes, order, centred),
        b_enc=codes.column_sums(delta),
        penalty=penalty,
        further=0.0 if smooth is None else smooth.loss,
    )


@torch.no_grad()
def sparse_step(
    sae: AffineSAE, rows: Acts, objective: Objective, dead: Bool[Tensor, " d_sae"] | None = None
) -> StepResult:
    """Loss terms and exact gradients of one batch of normalised rows.

    `dead` marks the latents that the auxiliary loss may revive; None, or a weight of 0, leaves that term out.
    """
    wanted = dead is not None and objective.aux > 0
    among = dead.nonzero()[:, 0] if dead is not None and wanted else torch.zeros(0, dtype=torch.int64)
    rows = rows.to(sae.W_dec.dtype)
    target, pre = sae.targets(rows), sae.pre_activations(sae.inputs(rows))
    found, aux_active = _collect(sae, pre, objective, among)
    terms = sae.terms(found, pre, target, objective) or _plain(sae, found, pre.acts, target, objective)
    gradients = _Gradients(sae, pre.acts, terms)
    weight = aux_weight(objective.aux, sae.d_model, among.numel())
    aux = None if aux_active is None else _aux(aux_active, terms.residual, sae.W_dec.detach()[among], weight)
    if aux is not None:
        gradients.dead(aux, among)
    result, active = gradients.finish(terms.upstream), terms.active
    for name, extra in terms.penalty.gradients.items():
        result[name] = result[name] + extra if name in result else extra
    return StepResult(
        gradients=result,
        reconstruction=terms.reconstruction,
        sparsity=terms.penalty.loss,
        aux=0.0 if aux is None else aux.loss,
        fvu=_share(float(terms.residual.square().sum()), target),
        l0=active.entries / active.tokens,
        fired=torch.bincount(active.columns, minlength=sae.d_sae) > 0,
        smallest=float(active.values.min()) if active.entries else None,
        further=terms.further,
    )


def _share(error: float, acts: Acts) -> float:
    total = float((acts - acts.mean(0)).square().sum())
    return error / total if total > 0 else 0.0
