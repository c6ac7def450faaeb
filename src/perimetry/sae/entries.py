"""Products at active entries with a graph, and codes from ragged entries: what the architectures without an affine
encoder are made of.

Autograd on gathered rows would hold a (token, slot, d_model) tensor; these hold what goes in and what comes out.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function

from perimetry.axes import Acts, Decoder, Encoder, ModelBias
from perimetry.errors import CorruptArtifact, WidthMismatch
from perimetry.sae.base import AbstractSAE, Codes, SAEState
from perimetry.sae.slots import order_codes
from perimetry.sae.steps.active import Active, ByColumn
from perimetry.sae.steps.base import Losses
from perimetry.sae.steps.products import decode, decode_slots, dense_above, sampled, transposed
from perimetry.sae.steps.sparse import aux_weight

__all__ = [
    "Places",
    "codes_of",
    "combine",
    "decode_codes",
    "explain",
    "losses_of",
    "nothing",
    "place",
    "products_at",
    "tensors_of",
]


class Places(NamedTuple):
    """Which entries are active, with the order that products over latents need."""

    active: Active
    """The entries; their values do not matter."""
    order: ByColumn | None
    """The column order; None where products go by dense chunks and need none."""


def place(active: Active) -> Places:
    """The places of some entries; make it once where several products share them."""
    return Places(active, active.by_column() if active.entries and active.density <= dense_above() else None)


class _ProductsAt(Function):
    @staticmethod
    def forward(ctx: Any, acts: Tensor, weights: Tensor, places: Places) -> Tensor:
        ctx.save_for_backward(acts, weights)
        ctx.places = places
        return sampled(places.active, acts, weights)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        acts, weights = ctx.saved_tensors
        here = ctx.places.active.replace(upstream[0].contiguous())
        to_acts = decode(here, weights) if ctx.needs_input_grad[0] else None
        to_weights = transposed(here, ctx.places.order, acts) if ctx.needs_input_grad[1] else None
        return to_acts, to_weights, None


class _Combine(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: Tensor, places: Places) -> Tensor:
        ctx.save_for_backward(values, weights)
        ctx.places = places
        return decode(places.active.replace(values), weights)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        values, weights = ctx.saved_tensors
        active, slope = ctx.places.active, upstream[0].contiguous()
        to_values = sampled(active, slope, weights) if ctx.needs_input_grad[0] else None
        to_weights = transposed(active.replace(values), ctx.places.order, slope) if ctx.needs_input_grad[1] else None
        return to_values, to_weights, None


def products_at(places: Places, acts: Acts, weights: Encoder) -> Float[Tensor, " entry"]:
    """Inner product of the token's row of `acts` and the latent's row of `weights`, at each entry, differentiable."""
    found = _ProductsAt.apply(acts, weights, places)
    assert isinstance(found, Tensor)
    return found


def combine(places: Places, values: Float[Tensor, " entry"], weights: Decoder) -> Acts:
    """Rows of `weights` added up by the values of each token's entries, differentiable."""
    found = _Combine.apply(values, weights, places)
    assert isinstance(found, Tensor)
    return found


def explain(
    places: Places, values: Float[Tensor, " entry"], decoder: Decoder, residual: Acts, weight: float
) -> Float[Tensor, ""]:
    """The auxiliary loss: how far the dead latents, whose rows `decoder` are, fall short of the residual.

    The residual is a constant here; the error is taken over its variance. 0 where the residual does not vary.
    """
    target = residual.detach()
    variance = (target - target.mean(0)).square().sum(1).mean()
    if float(variance) == 0:
        return target.new_zeros(())
    error = (combine(places, values, decoder) - target).square().sum(1).mean()
    return aux_weight(weight, decoder.shape[1], decoder.shape[0]) * error / variance


def nothing(width: int, like: Tensor) -> Active:
    """The entries of no token."""
    none = torch.zeros(1, dtype=torch.int64, device=like.device)
    return Active(none, none[:0], like.new_zeros(0), width)


def codes_of(active: Active) -> Codes:
    """Codes from ragged entries, whose values are above 0 and whose latents differ within a token."""
    counts = active.offsets.diff()
    slots = max(1, int(counts.max())) if active.tokens else 1
    rows = active.rows()
    slot = torch.arange(active.entries, device=rows.device) - active.offsets[rows]
    values = active.values.new_zeros(active.tokens, slots)
    columns = torch.zeros(active.tokens, slots, dtype=torch.int64, device=rows.device)
    values[rows, slot], columns[rows, slot] = active.values, active.columns
    values, order = values.sort(dim=1, descending=True, stable=True)
    return order_codes(values, columns.gather(1, order), active.width)


def decode_codes(codes: Codes, weights: Decoder, bias: ModelBias | None = None) -> Acts:
    """Sum of value times row of `weights`, plus `bias`. Errors: `WidthMismatch` for codes of another dictionary."""
    if codes.width != weights.shape[0]:
        raise WidthMismatch(
            f"codes of width {codes.width} for an SAE of {weights.shape[0]} latents; decode with the SAE that encoded"
        )
    found = decode_slots(codes.indices, codes.values.to(weights.dtype), weights.detach())
    return found if bias is None else found + bias.detach()


def losses_of(
    residual: Acts, fires: Int[Tensor, " entry"], width: int, penalty: Tensor | None = None, aux: Tensor | None = None
) -> Losses:
    """The losses of a batch with squared error; `fires` is the latent of every entry that is not 0."""
    loss = residual.square().sum(1).mean()
    none = loss.new_zeros(())
    return Losses(
        reconstruction=loss,
        sparsity=none if penalty is None else penalty,
        aux=none if aux is None else aux,
        error=float(residual.detach().square().sum()),
        l0=fires.shape[0] / residual.shape[0],
        fired=torch.bincount(fires, minlength=width) > 0,
    )


def tensors_of(sae: AbstractSAE, state: SAEState, *settings: str) -> dict[str, Tensor]:
    """The tensors of a state that rebuild `sae`, which has the right shapes for the state's `W_dec`.

    Errors: `CorruptArtifact` where a tensor or one of the `settings` is missing or unknown, `WidthMismatch` for a shape.
    """
    own = sae.state_dict()
    odd = sorted((own.keys() ^ state.tensors.keys()) | {name for name in settings if name not in state.settings})
    if odd:
        raise CorruptArtifact(
            f"a {sae.architecture} SAE has exactly {sorted(own)} and {sorted(settings)}; missing or unknown here: {odd}; "
            "make it again"
        )
    for name, tensor in state.tensors.items():
        if tensor.shape != own[name].shape:
            raise WidthMismatch(
                f"{name} has shape {tuple(tensor.shape)}, {tuple(own[name].shape)} is wanted; give tensors of one "
                "dictionary"
            )
    return dict(state.tensors)
