"""A step whose gradients never lie in memory: they are made row by row, twice, and go straight into Adam.

The first time gives their norm, which clipping needs, the second time the update. Making a row again costs less than
writing, reading and clearing two matrices as large as the weights, and the step needs no memory for them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from perimetry.axes import Acts, ModelBias
from perimetry.sae.affine import AffineSAE
from perimetry.sae.base import AbstractSAE
from perimetry.sae.steps import native, products
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Objective, Plain, StepResult
from perimetry.sae.steps.select import PreActivations
from perimetry.sae.steps.sparse import attempt, aux_weight, gather, plain_forward, share, summarise

__all__ = ["Fused", "fused_step"]

MATRICES = ("W_enc", "W_dec")
BLOCK = 256
"""Latents whose norms are summed together; that of the kernel."""


class Fused(NamedTuple):
    """A step that has been taken."""

    result: StepResult
    """Losses and counts; `gradients` holds those of the vectors only."""
    norm: float
    """Norm of the whole gradient before clipping."""


class _Entries(NamedTuple):
    """All that reaches the weights, the auxiliary loss as further rows below the batch."""

    active: Active
    delta: Tensor
    upstream: Acts


def _applies(sae: AbstractSAE, optimizer: torch.optim.Optimizer) -> bool:
    if not isinstance(sae, AffineSAE) or sae.own_terms():
        return False
    group = optimizer.param_groups[0]
    plain = isinstance(optimizer, torch.optim.Adam) and not (group["amsgrad"] or group["weight_decay"])
    trained = [p for name, p in sae.named_parameters() if name in MATRICES]
    return plain and all(p.requires_grad for p in trained) and native.usable(*(p.detach() for p in trained))


def _with_aux(plain: Plain, aux: Active | None, upstream: Acts | None, among: Tensor, decoder: Tensor) -> _Entries:
    active, delta = plain.active, plain.delta
    if aux is None or upstream is None:
        return _Entries(active, delta, plain.upstream)
    columns = among[aux.columns]
    towards = native.sampled(aux.offsets, columns, upstream, decoder)
    whole = Active(
        torch.cat([active.offsets, aux.offsets[1:] + active.entries]),
        torch.cat([active.columns, columns]),
        torch.cat([active.values, aux.values]),
        active.width,
    )
    return _Entries(whole, torch.cat([delta, towards]), torch.cat([plain.upstream, upstream]))


def _moments(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.tensor(0.0)
        state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
    return state


class _Prepared(NamedTuple):
    """A batch as the step reads it."""

    pre: PreActivations
    target: Acts
    bias: ModelBias


def _prepare(sae: AffineSAE, rows: Acts) -> _Prepared:
    """The encoder's input and the target; one tensor where both are the rows less `b_dec`."""
    whole = type(sae).inputs is AbstractSAE.inputs and type(sae).targets is AbstractSAE.targets
    b_dec = sae.b_dec.detach()
    if not (whole and sae.subtract_b_dec):
        return _Prepared(sae.pre_activations(sae.inputs(rows)), sae.targets(rows), b_dec)
    sae.check_width(rows)
    rows -= b_dec
    return _Prepared(PreActivations(rows, sae.W_enc.detach(), sae.b_enc.detach()), rows, torch.zeros_like(b_dec))


class _Range(NamedTuple):
    """Latents whose entries share upstream rows, with the arguments of the kernel and the results of its first pass."""

    arguments: native.Update
    norms: Tensor
    path: Tensor


class _Passes:
    """Both passes over all latents: at once, or level by level where each level has an upstream gradient of its own."""

    def __init__(
        self,
        sae: AffineSAE,
        optimizer: torch.optim.Optimizer,
        entries: _Entries,
        inputs: Acts,
        plain: Plain,
        unit: bool,
    ) -> None:
        self.sae, self.optimizer, self.plain, self.upstream = sae, optimizer, plain, entries.upstream
        self.bias = torch.empty(sae.d_sae)
        order = entries.active.by_column()
        shared = {
            "order": order.order,
            "row_of": order.rows,
            "values": entries.active.values,
            "delta": entries.delta,
            "upstream": entries.upstream,
            "inputs": inputs,
        }
        stairs = plain.stairs
        levels = (
            ((0, sae.d_sae),) if stairs is None else [(g.level.start, g.level.end) for g in reversed(stairs.groups)]
        )
        self.ranges = [self._range(start, stop, order.offsets, shared, inputs.shape[0], unit) for start, stop in levels]

    def _range(
        self, start: int, stop: int, offsets: Tensor, shared: dict[str, Tensor], tokens: int, unit: bool
    ) -> _Range:
        sae, group = self.sae, self.optimizer.param_groups[0]
        encoder, decoder = _moments(self.optimizer, sae.W_enc), _moments(self.optimizer, sae.W_dec)
        width, (beta1, beta2), steps = stop - start, group["betas"], int(encoder["step"]) + 1
        blocks = -(-width // BLOCK)
        norms = torch.empty(blocks, dtype=torch.float64)
        path = torch.empty(blocks, sae.W_enc.shape[1], dtype=torch.float64)
        by_latent = {
            "W_enc": sae.W_enc.detach(),
            "W_dec": sae.W_dec.detach(),
            "enc_m": encoder["exp_avg"],
            "enc_v": encoder["exp_avg_sq"],
            "dec_m": decoder["exp_avg"],
            "dec_v": decoder["exp_avg_sq"],
            "bias": self.bias,
        }
        if self.plain.penalty.pull is not None:
            by_latent["pull"] = self.plain.penalty.pull
        held = {"starts": offsets[start : stop + 1], "norms": norms, "path": path}
        held |= shared | {name: tensor[start:stop] for name, tensor in by_latent.items()}
        arguments = native.Update(
            width=width,
            d_in=sae.W_enc.shape[1],
            d_out=sae.W_dec.shape[1],
            tokens=tokens,
            unit_decoder=int(unit),
            clip=1.0,
            beta1=beta1,
            beta2=beta2,
            step_size=group["lr"] / (1 - beta1**steps),
            correction=math.sqrt(1 - beta2**steps),
            eps=group["eps"],
        )
        for name, tensor in held.items():
            setattr(arguments, name, tensor.data_ptr())
        arguments.held = held  # the structure holds bare addresses: this keeps the tensors alive as long as it lives
        return _Range(arguments, norms, path)

    def run(self, clip: float, *, apply: bool) -> None:
        """Norms, or the update with gradients times `clip`."""
        stairs, tokens = self.plain.stairs, self.plain.active.tokens
        levels = None if stairs is None else stairs.down(self.sae.W_dec.detach(), self.upstream[:tokens])
        for part in self.ranges:
            if levels is not None:
                next(levels)
            part.arguments.clip = clip
            native.update(part.arguments, apply=apply)

    def squares(self) -> float:
        """Squared norm of the gradients of both matrices, after the first pass."""
        return float(torch.cat([part.norms for part in self.ranges]).sum())

    def path(self) -> Tensor:
        """Sum over latents of the bias' gradient times the encoder row, after the first pass."""
        return torch.cat([part.path for part in self.ranges]).sum(0).float()


@torch.no_grad()
def fused_step(
    sae: AbstractSAE,
    optimizer: torch.optim.Optimizer,
    rows: Callable[[], Acts],
    objective: Objective,
    dead: Bool[Tensor, " d_sae"],
    *,
    clip: float,
    unit_decoder: bool,
) -> Fused | None:
    """One step of training on scaled rows: as the exact step followed by `apply_gradients`, to rounding.

    `rows` makes the rows anew; they are overwritten. None where the kernels are missing, or the architecture does more than they know; nothing is changed then.
    """
    if not _applies(sae, optimizer):
        return None
    assert isinstance(sae, AffineSAE), "only affine architectures apply"
    among = dead.nonzero()[:, 0] if objective.aux > 0 else dead.new_zeros(0, dtype=torch.int64)
    pre, target, bias = _prepare(sae, rows())
    found, aux_active = gather(sae, pre, objective, among)
    if not found or found[0].density > products.dense_above() or not native.usable(found[0].values, target, pre.acts):
        return None
    whole, target = target, sae.remainder(pre.acts, target)
    plain = plain_forward(sae, found, target, objective, bias)
    if plain.penalty.gradients.keys() & set(MATRICES):
        return None
    decoder = sae.W_dec.detach()
    weight = aux_weight(objective.aux, sae.W_dec.shape[1], among.numel())
    aux = None if aux_active is None else attempt(aux_active, plain.residual, decoder[among], weight)
    entries = _with_aux(plain, aux_active, None if aux is None else aux.upstream, among, decoder)
    passes = _Passes(sae, optimizer, entries, pre.acts, plain, unit_decoder)
    passes.run(1.0, apply=False)
    vectors = _vectors(sae, plain, passes, pre.acts)
    norm = math.sqrt(passes.squares() + sum(float(g.double().square().sum()) for g in vectors.values()))
    factor = clip / norm if norm > clip else 1.0
    result = _result(plain, whole, 0.0 if aux is None else aux.loss, vectors)
    if math.isfinite(norm + result.loss):
        passes.run(factor, apply=True)
        for name in MATRICES:
            optimizer.state[getattr(sae, name)]["step"] += 1
        for name, gradient in vectors.items():
            getattr(sae, name).grad = gradient * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        sae.after_update()
    return Fused(result, norm)


def _vectors(sae: AffineSAE, plain: Plain, passes: _Passes, inputs: Acts) -> dict[str, Tensor]:
    """Gradients of all parameters but the two matrices, after the first pass."""
    upstream = plain.upstream
    b_dec = upstream.sum(0)
    if sae.subtract_b_dec:
        b_dec = b_dec - passes.path()
    found = {"b_enc": passes.bias, "b_dec": b_dec} | sae.further_gradients(inputs, upstream)
    for name, extra in plain.penalty.gradients.items():
        found[name] = found[name] + extra if name in found else extra
    return found


def _result(plain: Plain, target: Acts, aux: float, vectors: dict[str, Tensor]) -> StepResult:
    summary = summarise(plain.active if plain.fires is None else plain.fires)
    return StepResult(
        gradients=vectors,
        reconstruction=plain.reconstruction,
        sparsity=plain.penalty.loss,
        aux=aux,
        fvu=share(plain.error, target),
        l0=summary.l0,
        fired=summary.fired,
        smallest=summary.smallest,
        further=plain.further,
    )
