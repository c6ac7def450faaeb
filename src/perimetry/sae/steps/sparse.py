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

from perimetry.axes import Acts, Decoder, ModelBias, Read, Written
from perimetry.sae.affine import AffineSAE
from perimetry.sae.steps import native, products
from perimetry.sae.steps.active import Active, ByColumn
from perimetry.sae.steps.base import Forward, Objective, Plain, StepResult, Summary, Terms
from perimetry.sae.steps.products import decode, residual, sampled, transposed
from perimetry.sae.steps.select import Collector, PreActivations, TopK, collect
from perimetry.sae.terms.smooth import smooth_term

__all__ = [
    "attempt",
    "aux_count",
    "aux_weight",
    "gather",
    "plain_forward",
    "share",
    "sparse_step",
    "summarise",
]


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


def attempt(active: Active, residual: Acts, decoder: Tensor, weight: float) -> _Aux | None:
    """The dead latents' attempt at the residual, which is a constant here, over the residual's variance."""
    variance = products.square_sum(residual - residual.mean(0)) / residual.shape[0]
    if variance == 0:
        return None
    error = decode(active, decoder) - residual
    tokens = residual.shape[0]
    loss = weight * products.square_sum(error) / tokens / variance
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


def gather(
    sae: AffineSAE, pre: PreActivations, objective: Objective, dead: Tensor
) -> tuple[list[Active], Active | None]:
    """The entries of the architecture's collectors, and those of the dead latents that the auxiliary loss reads."""
    collectors: list[Collector] = sae.collectors(pre, objective)
    # An architecture that makes its own pass over the product asks for none here.
    found = collect(pre, collectors) if collectors else []
    if not dead.numel():
        return found, None
    # The dead latents are a dictionary of their own: columns of the result are positions in `dead`.
    among = PreActivations(pre.acts, pre.W_enc[dead], pre.b_enc[dead])
    return found, collect(among, [TopK(aux_count(sae.W_dec.shape[1], dead.numel()))])[0]


def plain_forward(
    sae: AffineSAE, found: list[Active], target: Acts, objective: Objective, bias: ModelBias | None = None
) -> Plain:
    """What every step does between the selection and the gradients of the weights.

    `bias` takes the place of `b_dec` where the target has been freed of that already.
    """
    active, decoder, scale = found[0], sae.W_dec.detach(), -2 / target.shape[0]
    bias = sae.b_dec.detach() if bias is None else bias
    own = sae.plain(found, target, bias, objective)
    if own is not None:
        return own
    if active.density <= products.dense_above() and native.usable(active.values, decoder, bias, target):
        places = active.offsets, active.columns, active.values
        upstream, delta, error = native.residual(*places, decoder, bias, target, scale)
    else:
        upstream, error = residual(active, decoder, bias, target, scale)
        delta = sampled(active, upstream, decoder)
    smooth = smooth_term(active, objective.smooth)
    if smooth is not None:
        delta = delta + smooth.towards(active)
    penalty = sae.penalty(Forward(active, found[1] if len(found) > 1 else None, upstream, smooth), objective)
    if penalty.values is not None:
        delta = delta + penalty.values
    return Plain(active, delta, upstream, error, penalty, 0.0 if smooth is None else smooth.loss)


def _plain(sae: AffineSAE, found: list[Active], centred: Read, target: Written, objective: Objective) -> Terms:
    """All terms and gradients of a batch without an auxiliary loss."""
    plain = plain_forward(sae, found, target, objective)
    order, codes = plain.active.by_column(), plain.active.replace(plain.delta)
    return Terms(
        active=plain.active if plain.fires is None else plain.fires,
        residual=plain.residual,
        reconstruction=plain.reconstruction,
        upstream=plain.upstream,
        W_dec=_decoder(sae, plain, order),
        W_enc=transposed(codes, order, centred),
        b_enc=codes.column_sums(plain.delta),
        penalty=plain.penalty,
        further=plain.further,
    )


def _decoder(sae: AffineSAE, plain: Plain, order: ByColumn) -> Decoder:
    if plain.stairs is None:
        return transposed(plain.active, order, plain.upstream)
    decoder = sae.W_dec.detach()
    found, upstream = torch.empty_like(decoder), torch.empty_like(plain.upstream)
    for group in plain.stairs.down(decoder, upstream):
        found[group.level.start : group.level.end] = transposed(group.active, None, upstream)
    return found


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
    found, aux_active = gather(sae, pre, objective, among)
    rest = sae.remainder(pre.acts, target)
    terms = sae.terms(found, pre, rest, objective) or _plain(sae, found, pre.acts, rest, objective)
    gradients = _Gradients(sae, pre.acts, terms)
    weight = aux_weight(objective.aux, sae.W_dec.shape[1], among.numel())
    aux = None if aux_active is None else attempt(aux_active, terms.residual, sae.W_dec.detach()[among], weight)
    if aux is not None:
        gradients.dead(aux, among)
    result, active = gradients.finish(terms.upstream), terms.active
    result |= sae.further_gradients(pre.acts, terms.upstream)
    for name, extra in terms.penalty.gradients.items():
        result[name] = result[name].add_(extra) if name in result else extra
    if terms.penalty.pull is not None:
        result["W_dec"].addcmul_(sae.W_dec.detach(), terms.penalty.pull[:, None])
    summary = terms.summary or summarise(active)
    return StepResult(
        gradients=result,
        reconstruction=terms.reconstruction,
        sparsity=terms.penalty.loss,
        aux=0.0 if aux is None else aux.loss,
        fvu=share(products.square_sum(terms.residual), target),
        l0=summary.l0,
        fired=summary.fired,
        smallest=summary.smallest,
        further=terms.further,
    )


def summarise(active: Active) -> Summary:
    """What the loop must know of the entries of a batch."""
    return Summary(
        l0=active.entries / active.tokens,
        fired=torch.bincount(active.columns, minlength=active.width) > 0,
        smallest=float(active.values.min()) if active.entries else None,
    )


def share(error: float, acts: Acts) -> float:
    """A summed squared error as a share of the variance of `acts`; 0 where that has none."""
    if native.usable(acts):
        total = native.spread(acts)
    else:
        total = float(acts.var(0, correction=0).double().sum()) * acts.shape[0]
    return error / total if total > 0 else 0.0
