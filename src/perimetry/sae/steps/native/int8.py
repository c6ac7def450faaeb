"""The int8 product: rounded encoder and rows, and what is read off their product while it is made."""

import ctypes
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.axes import Acts, Encoder, LatentBias
from perimetry.sae.steps.native.library import LONG, call, usable

__all__ = ["Int8Entries", "Int8Product", "int8_usable"]

ROWS, PANEL, QUAD = 12, 32, 4
"""Rows and latents of a tile, and coordinates that one instruction multiplies; those of the kernel."""
SAMPLE = 512
"""Rows by which the factors of the coordinates are chosen."""
TOO_MANY = 2
MULTIPLIES = 2


def int8_usable(*tensors: Tensor) -> bool:
    """Whether the kernels are there, this processor can multiply bytes, and these tensors can be read."""
    return usable(*tensors) and call("pm_int8") == MULTIPLIES


class _Product(ctypes.Structure):
    """The C structure of that name."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "factors", "bias", "weights", "steps", "sizes")),
        *((name, ctypes.c_void_p) for name in ("acts", "row_steps", "row_norms", "start")),
        *((name, LONG) for name in ("rows", "width", "d")),
    )


class Int8Entries(NamedTuple):
    """Entries that may reach their cuts, by row and latent."""

    offsets: Tensor
    """(row + 1) int64."""
    columns: Tensor
    """Latents, int64."""
    scores: Tensor
    """What the int8 product gives for them."""
    slack: Tensor
    """How far below its cut each may have lain."""


def _factors(acts: Acts, weights: Encoder) -> Float[Tensor, " d"]:
    """What each coordinate of the rows is multiplied by, and of the encoder divided by, so that both round equally well."""
    rows = acts[:: max(1, acts.shape[0] // SAMPLE)].square().mean(0).sqrt()
    latents = weights[:: max(1, weights.shape[0] // SAMPLE)].square().mean(0).sqrt()
    found = (latents / rows).sqrt()
    known = torch.isfinite(found) & (found > 0)
    middle = float(found[known].median()) if bool(known.any()) else 1.0
    return torch.where(known, found, middle).clamp(middle / 256, middle * 256)


def _up(count: int, to: int) -> int:
    return -(-count // to) * to


@final
class Int8Product:
    """Rows, encoder and bias (float32, contiguous), rounded."""

    def __init__(self, acts: Acts, weights: Encoder, bias: LatentBias) -> None:
        (rows, d), width = acts.shape, weights.shape[0]
        self.weights, self.rows, self.width = weights, rows, width
        quads, wide, long = _up(d, QUAD), _up(width, PANEL), _up(rows, ROWS)
        self.bias = torch.nn.functional.pad(bias, (0, wide - width), value=-torch.inf)
        self._held = {
            "x": acts,
            "factors": _factors(acts, weights),
            "bias": self.bias,
            "weights": torch.empty(wide * quads, dtype=torch.uint8),
            "steps": torch.empty(wide),
            "sizes": torch.empty(wide),
            "acts": torch.empty(long * quads, dtype=torch.int8),
            "row_steps": torch.empty(long),
            "row_norms": torch.empty(long),
            "start": torch.empty(long, dtype=torch.int32),
        }
        self._raw = _Product(rows=rows, width=width, d=d)
        for name, tensor in self._held.items():
            setattr(self._raw, name, tensor.data_ptr())
        call("pm_round_weights", ctypes.byref(self._raw), weights)
        call("pm_round_rows", ctypes.byref(self._raw))

    def top(self, k: int, listed: int, sigmas: float) -> tuple[Tensor, Tensor, Tensor]:
        """Latents and exact values of the k largest positive scores of each row, best first, and the rows in doubt.

        At least `listed` latents of a row are kept while it is read. A row is in doubt when one outside its list comes within
        `sigmas` expected errors of the k-th exact value, or when an error was larger than expected.
        """
        columns = torch.empty(self.rows, k, dtype=torch.int64)
        values, doubt = torch.empty(self.rows, k), torch.empty(self.rows, dtype=torch.bool)
        sizes = [LONG(listed), LONG(k), ctypes.c_double(sigmas)]
        call("pm_top_int8", ctypes.byref(self._raw), self.weights, *sizes, columns, values, doubt)
        return columns, values, doubt

    def above(self, cuts: LatentBias, sigmas: float, limit: int) -> Int8Entries | None:
        """What comes within `sigmas` expected errors of the cut of its latent; None where there is more than `limit`."""
        padded = torch.nn.functional.pad(cuts, (0, self.bias.shape[0] - self.width), value=torch.inf)
        counts, handle = torch.empty(self.rows, dtype=torch.int64), ctypes.c_void_p()
        noise, product = ctypes.c_double(sigmas), ctypes.byref(self._raw)
        if call("pm_above_int8", product, padded, noise, LONG(limit), counts, ctypes.byref(handle)) == TOO_MANY:
            return None
        offsets = torch.zeros(self.rows + 1, dtype=torch.int64)
        torch.cumsum(counts, 0, out=offsets[1:])
        total = int(offsets[-1])
        found = Int8Entries(offsets, torch.empty(total, dtype=torch.int64), torch.empty(total), torch.empty(total))
        call("pm_above_int8_take", product, noise, handle, *found)
        return found
