"""Codes by slot: what fires of each token, the largest values first."""

import torch
from torch import Tensor

from perimetry.axes import Latents
from perimetry.sae.base import Codes
from perimetry.sae.steps import native
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.select import from_mask

__all__ = ["by_slot", "fire_above", "order_codes"]


def order_codes(values: Latents, columns: Tensor, width: int) -> Codes:
    """Codes with values descending, equal values by ascending latent, empty slots (0, 0) last."""
    columns = torch.where(values != 0, columns, 0)
    if bool(((values[:, 1:] == values[:, :-1]) & (values[:, 1:] != 0)).any()):
        by_latent = columns.argsort(dim=1, stable=True)
        values, columns = values.gather(1, by_latent), columns.gather(1, by_latent)
        by_value = values.argsort(dim=1, descending=True, stable=True)
        values, columns = values.gather(1, by_value), columns.gather(1, by_value)
    return Codes(columns, values, width)


def fire_above(pre: Latents, cut: Tensor) -> tuple[Tensor, Tensor]:
    """`fire` for the architectures with a free count: every pre-activation strictly above its cut and above 0."""
    return by_slot(from_mask(pre, pre > cut.clamp(min=0)))


def by_slot(active: Active) -> tuple[Tensor, Tensor]:
    """Values and latents (token, slot) of positive entries: values descending, equal ones by ascending latent, (0, 0) last."""
    # A top-k as wide as the busiest token would sort that much for every token; most have far fewer.
    slots = max(1, int(active.offsets.diff().max()))
    if native.usable(active.values):
        return native.by_slot(active.offsets.contiguous(), active.columns.contiguous(), active.values, slots)
    rows = active.rows()
    place = torch.arange(active.entries, device=rows.device) - active.offsets[:-1][rows]
    values = active.values.new_zeros(active.tokens, slots)
    columns = torch.zeros(active.tokens, slots, dtype=torch.int64, device=rows.device)
    values[rows, place], columns[rows, place] = active.values, active.columns
    values, order = values.sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)
