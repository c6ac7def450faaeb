"""The mechanics of matching pursuit: choosing atoms without a graph, and the gradient of what they leave."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd import Function

from perimetry.axes import Acts, Decoder, PerToken
from perimetry.sae.entries import nothing
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.products import row_chunks

__all__ = ["Choice", "Pursued", "PursuitRule", "entries_of", "pursue", "pursue_rows", "residual_of"]

ROUNDING = 4
"""Units of rounding within which a product counts as 0."""


class PursuitRule(NamedTuple):
    """When a pursuit ends, and how products become values."""

    max_iterations: int
    """Most steps of a token."""
    residual_threshold: float = 0.0
    """Stop once the residual's norm is below this."""
    stop_on_duplicate_support: bool = True
    """Stop after a step that chose no new atom."""
    atom_norm: float = 1.0
    """Norm of every atom; a value is the product over its square."""

    @property
    def gain(self) -> float:
        """What products are multiplied with."""
        return self.atom_norm**-2

    def floor(self, centred: Acts) -> PerToken:
        """What a value must exceed: below it, rounding alone makes a residual agree with an atom that it is orthogonal to."""
        return ROUNDING * torch.finfo(centred.dtype).eps * centred.norm(dim=1) / self.atom_norm


class Choice(NamedTuple):
    """One step of a pursuit."""

    rows: Int[Tensor, " row"]
    """Tokens that took an atom; one that agrees with none takes none, and its pursuit ends."""
    atoms: Int[Tensor, " row"]
    """Which atom each took."""
    values: Float[Tensor, " row"]
    """How much of it."""


class Pursued(NamedTuple):
    """What pursuits came to."""

    residual: Acts
    """What is left of each token."""
    choices: list[Choice]
    """Every step."""


def pursue_rows(residual: Acts, atoms: Decoder, rule: PursuitRule, first: int) -> list[Choice]:
    """Pursue the rows of a chunk, whose residual is written over; `first` is added to the rows of the choices."""
    choices: list[Choice] = []
    rows, left, floor = torch.arange(residual.shape[0], device=residual.device), residual, rule.floor(residual)
    taken = rows.new_full((residual.shape[0], rule.max_iterations), -1)
    for step in range(rule.max_iterations):
        chosen = (left @ atoms.T).max(dim=1).indices
        picked = atoms[chosen]
        values = rule.gain * (left * picked).sum(1)
        some = values > floor[rows]
        if not bool(some.all()):
            rows, chosen, values, left, picked = rows[some], chosen[some], values[some], left[some], picked[some]
        left = torch.addcmul(left, values[:, None], picked, value=-1)
        residual[rows] = left
        choices.append(Choice(rows + first, chosen, values))
        going = left.square().sum(1) >= rule.residual_threshold**2
        if rule.stop_on_duplicate_support:
            going &= (taken[rows, :step] != chosen[:, None]).all(1)
            taken[rows, step] = chosen
        rows, left = rows[going], left[going]
        if not rows.numel():
            break
    return choices


@torch.no_grad()
def pursue(centred: Acts, atoms: Decoder, rule: PursuitRule) -> Pursued:
    """Pursue every token, in chunks of rows."""
    residual, choices = centred.clone(), []
    for start, stop in row_chunks(residual.shape[0], atoms.shape[0]):
        choices += pursue_rows(residual[start:stop], atoms, rule, start)
    return Pursued(residual, choices)


def entries_of(choices: list[Choice], tokens: int, like: Decoder) -> Active:
    """What each token chose as entries, an atom that it chose twice added up."""
    width = like.shape[0]
    if not choices:
        none = nothing(width, like)
        return none._replace(offsets=none.offsets.expand(tokens + 1).contiguous())
    keys = torch.cat([c.rows * width + c.atoms for c in choices])
    places, back = keys.unique(return_inverse=True)
    values = like.new_zeros(places.shape[0]).index_add_(0, back, torch.cat([c.values for c in choices]))
    rows = torch.div(places, width, rounding_mode="floor")
    offsets = nn.functional.pad(torch.bincount(rows, minlength=tokens).cumsum(0), (1, 0))
    return Active(offsets, places - rows * width, values, width)


class _Residual(Function):
    """What a pursuit leaves, differentiable through the values with the chosen atoms held.

    Going backward, each step's residual is made again from the one after it, so that one of them is held at a time.
    """

    @staticmethod
    def forward(ctx: Any, centred: Tensor, atoms: Tensor, pursued: Pursued, gain: float) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(atoms, pursued.residual)
        ctx.choices, ctx.gain = pursued.choices, gain
        return pursued.residual.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:
        atoms, residual = ctx.saved_tensors
        left, slope, towards = residual.clone(), upstream[0].clone(), torch.zeros_like(atoms)
        for rows, chosen, values in reversed(ctx.choices):
            picked, here = atoms[chosen], slope[rows]
            before = left[rows].addcmul_(values[:, None], picked)
            value_slope = -ctx.gain * (here * picked).sum(1, keepdim=True)
            towards.index_add_(0, chosen, value_slope * before - values[:, None] * here)
            left[rows], slope[rows] = before, here.addcmul_(value_slope, picked)
        return slope, towards, None, None


def residual_of(centred: Acts, atoms: Decoder, pursued: Pursued, rule: PursuitRule) -> Acts:
    """The residual of a pursuit with a graph: towards the values, the chosen atoms held."""
    found = _Residual.apply(centred, atoms, pursued, rule.gain)
    assert isinstance(found, Tensor)
    return found
