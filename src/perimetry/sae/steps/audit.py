"""Looks whether the selection by few bits is that of the float32 product, on some rows of the data at hand."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from perimetry.axes import Acts
from perimetry.sae.affine import AffineSAE
from perimetry.sae.base import AbstractSAE
from perimetry.sae.steps import low
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Objective
from perimetry.sae.steps.select import PreActivations, collect_dense

__all__ = ["AUDIT_EVERY", "AUDIT_MOST", "Audit", "audit", "differing"]

AUDIT_EVERY = 500
"""Steps from one audit to the next."""
AUDIT_MOST = 4096
"""Rows that an audit is given at most."""
ROWS = 256
ROUNDING = 1e-5
"""Relative difference of values that change places by rounding alone."""


class Audit(NamedTuple):
    """What an audit saw."""

    rows: int
    """Rows that were selected in both ways."""
    missed: int
    """Entries that only one way has, though they are clear of the cut by more than rounding."""


def _rows_of(active: Active) -> Tensor:
    """The matrix with zeros."""
    out = active.values.new_zeros(active.tokens, active.width)
    out[active.rows(), active.columns] = active.values
    return out


def differing(found: Active, wanted: Active, edges: Sequence[Tensor] = ()) -> int:
    """Entries of one that are none of the other and lie clear of every cut.

    Cuts are the smallest that is wanted of a row, the smallest of all rows, and `edges`: one number or one a latent.
    """
    a, b = _rows_of(found), _rows_of(wanted)
    values, present = torch.where(a != 0, a, b), torch.where(b != 0, b, torch.inf)
    differs = (a != 0) != (b != 0)
    for cut in (present.amin(1, keepdim=True), present.amin(), *edges):
        differs &= (values - cut).abs() > ROUNDING * torch.where(cut.isfinite(), cut, 0).abs()
    return int(differs.sum())


@torch.no_grad()
def audit(sae: AbstractSAE, rows: Acts, objective: Objective) -> Audit | None:
    """Select for the first of some scaled rows in both ways; None where the selection is that of float32 anyhow."""
    if not isinstance(sae, AffineSAE):
        return None
    few = rows[: max(ROWS, -(-low.SMALLEST // sae.d_sae))].to(sae.W_dec.dtype)
    pre: PreActivations = sae.pre_activations(sae.inputs(few))
    one, other = sae.collectors(pre, objective), sae.collectors(pre, objective)
    if not one or not low.low_usable(pre, one):
        return None
    found = low.low_collect(pre, one)
    if found is None:
        return None
    wanted = collect_dense(pre, other)
    missed = sum(differing(a, b, c.edges()) for a, b, c in zip(found, wanted, other, strict=True))
    return Audit(few.shape[0], missed)
