"""The compiled kernels, on tensors. Each has a twin in torch operations that gives the same numbers.

They take contiguous float32 tensors of the CPU; `usable` says whether some tensors are that and the kernels are there.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perimetry.sae.steps.native.library import LONG, call, usable

__all__ = [
    "Candidates",
    "Refined",
    "Update",
    "above",
    "absent",
    "by_column",
    "by_slot",
    "candidates",
    "decode",
    "decode_slots",
    "halves",
    "largest",
    "project",
    "refine",
    "residual",
    "sampled",
    "spread",
]
__all__ += ["transposed", "update", "usable"]


class Candidates(NamedTuple):
    """The best bf16 scores of some rows."""

    columns: Tensor
    """(row, m) int32; the first `counts` of a row are set."""
    scores: Tensor
    """(row, m) bf16 scores."""
    counts: Tensor
    """Candidates of each row, int32."""


class Refined(NamedTuple):
    """The exact top k among candidates."""

    columns: Tensor
    """(row, k) int64, best first."""
    values: Tensor
    """(row, k) float32, 0 where fewer are positive."""
    doubt: Tensor
    """Rows whose selection the bf16 scores leave in doubt."""


def candidates(scores: Tensor, m: int) -> Candidates:
    """The `m` largest positive scores of each row of a contiguous bf16 (row, latent) matrix."""
    rows, width = scores.shape
    assert scores.dtype == torch.bfloat16, "scores in bf16"
    assert scores.is_contiguous(), "scores row by row"
    found = Candidates(
        torch.empty(rows, m, dtype=torch.int32),
        torch.empty(rows, m, dtype=torch.bfloat16),
        torch.empty(rows, dtype=torch.int32),
    )
    call("pm_candidates", scores, LONG(rows), LONG(width), LONG(m), *found)
    return found


def refine(acts: Tensor, weights: Tensor, bias: Tensor, found: Candidates, k: int, sigmas: float) -> Refined:
    """Exact float32 scores of the candidates, and the k largest positive ones of each row."""
    (rows, d), m = acts.shape, found.columns.shape[1]
    out = Refined(torch.empty(rows, k, dtype=torch.int64), torch.empty(rows, k), torch.empty(rows, dtype=torch.bool))
    sizes = [LONG(rows), LONG(d), LONG(m), LONG(k)]
    call("pm_refine", acts, weights, bias, *sizes, ctypes.c_double(sigmas), *found, *out)
    return out


def above(scores: Tensor, cut: Tensor, cuts: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets, columns and bf16 scores (as float32) of what reaches `cut` of its row (plus `cuts` of its column)."""
    rows, width = scores.shape
    counts = torch.empty(rows, dtype=torch.int64)
    sizes = [LONG(rows), LONG(width)]
    by_column = ctypes.c_void_p(None) if cuts is None else cuts
    nothing = ctypes.c_void_p(None)
    call("pm_above", scores, *sizes, cut, by_column, nothing, counts, nothing, nothing)
    offsets = torch.zeros(rows + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=offsets[1:])
    columns = torch.empty(int(offsets[-1]), dtype=torch.int64)
    values = torch.empty(columns.shape[0])
    call("pm_above", scores, *sizes, cut, by_column, offsets, nothing, columns, values)
    return offsets, columns, values


def largest(x: Tensor, k: int) -> Tensor:
    """Columns (row, k) of the `k` largest of each row, largest first; of equals the first ones."""
    found = torch.empty(x.shape[0], k, dtype=torch.int64)
    call("pm_largest", x, LONG(x.shape[0]), LONG(x.shape[1]), LONG(k), found)
    return found


def project(scores: Tensor, codes: Tensor, mask: Tensor) -> Tensor:
    """Projection of each row onto the simplex, to `codes`, and 1 where it is above 0, to `mask`; the number of those a row.

    `scores` are shifted to a largest of 0 in place.
    """
    counts = torch.empty(scores.shape[0])
    call("pm_project", scores, LONG(scores.shape[0]), LONG(scores.shape[1]), codes, mask, counts)
    return counts


def absent(near: Tensor, lists: Tensor, own: Tensor, width: int) -> Tensor:
    """Which of a row's own columns (row, slot) stand in none of the `lists` (int32, `width` at their end) of its `near` rows."""
    near, lists, own = near.contiguous(), lists.contiguous(), own.contiguous()
    assert lists.dtype == torch.int32, "lists of 32-bit columns"
    assert near.dtype == own.dtype == torch.int64, "positions of 64 bits"
    out = torch.empty(own.shape, dtype=torch.bool)
    sizes = [LONG(near.shape[1]), lists, LONG(lists.shape[1]), own, LONG(own.shape[1]), LONG(width)]
    call("pm_absent", near, LONG(near.shape[0]), *sizes, out)
    return out


def decode(offsets: Tensor, columns: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """For each row the sum of value times weight row."""
    rows, d = offsets.shape[0] - 1, weights.shape[1]
    out = torch.empty(rows, d)
    call("pm_decode", offsets, columns, values, weights, LONG(rows), LONG(d), out)
    return out


def decode_slots(columns: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """As `decode`, of entries (row, slot); slots after the last value that is not 0 are not read."""
    columns, values = columns.contiguous(), values.contiguous()
    (rows, slots), d = columns.shape, weights.shape[1]
    out = torch.empty(rows, d)
    call("pm_decode_slots", columns, values, LONG(slots), weights, LONG(rows), LONG(d), out)
    return out


def by_slot(offsets: Tensor, columns: Tensor, values: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Values and columns (row, slot) of entries above 0: values descending, equal ones by column, (0, 0) last."""
    rows = offsets.shape[0] - 1
    out = torch.empty(rows, slots), torch.empty(rows, slots, dtype=torch.int64)
    call("pm_by_slot", offsets, columns, values, LONG(rows), LONG(slots), *out)
    return out


def halves() -> bool:
    """Whether `sampled` reads weights of half precision as they are."""
    return usable() and call("pm_halves") == 2


def sampled(offsets: Tensor, columns: Tensor, upstream: Tensor, weights: Tensor) -> Tensor:
    """For each entry the inner product of its upstream row and its weight row; weights may be float16 where `halves`."""
    out = torch.empty(columns.shape[0])
    rows, d = upstream.shape
    name = "pm_sampled_half" if weights.dtype == torch.float16 else "pm_sampled"
    call(name, offsets, columns, upstream, weights, LONG(rows), LONG(d), out)
    return out


def residual(
    offsets: Tensor, columns: Tensor, values: Tensor, weights: Tensor, bias: Tensor, target: Tensor, scale: float
) -> tuple[Tensor, Tensor, float]:
    """Upstream gradient (`scale` times the residual), its products at the entries, and the summed squared error."""
    rows, d = target.shape
    upstream, delta = torch.empty(rows, d), torch.empty(columns.shape[0])
    errors = torch.empty(rows, dtype=torch.float64)
    sizes = [LONG(rows), LONG(d), ctypes.c_float(scale)]
    call("pm_residual", offsets, columns, values, weights, bias, target, *sizes, upstream, delta, errors)
    return upstream, delta, float(errors.sum())


def spread(acts: Tensor) -> float:
    """Summed squared distance of the rows from their mean."""
    total = ctypes.c_double()
    call("pm_spread", acts, LONG(acts.shape[0]), LONG(acts.shape[1]), ctypes.byref(total))
    return total.value


def by_column(offsets: Tensor, columns: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Order, row and starts of the entries by latent."""
    order, row_of = torch.empty_like(columns), torch.empty_like(columns)
    starts = torch.empty(width + 1, dtype=torch.int64)
    call("pm_by_column", offsets, columns, LONG(offsets.shape[0] - 1), LONG(width), order, row_of, starts)
    return order, row_of, starts


def transposed(starts: Tensor, order: Tensor, row_of: Tensor, values: Tensor, upstream: Tensor) -> Tensor:
    """For each latent the sum over its entries of value times upstream row."""
    width, d = starts.shape[0] - 1, upstream.shape[1]
    out = torch.empty(width, d)
    call("pm_transposed", starts, order, row_of, values, upstream, LONG(width), LONG(d), out)
    return out


def _pointers(names: Sequence[str]) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_void_p) for name in names]


class Update(ctypes.Structure):
    """Arguments of `update`; the fields are those of the C structure of that name."""

    _fields_ = (
        *_pointers(("starts", "order", "row_of", "values", "delta", "upstream", "inputs")),
        *((name, LONG) for name in ("width", "d_in", "d_out", "tokens")),
        *_pointers(("W_enc", "W_dec", "enc_m", "enc_v", "dec_m", "dec_v")),
        ("unit_decoder", LONG),
        ("pull", ctypes.c_void_p),
        *_pointers(("norms", "path", "bias")),
        *((name, ctypes.c_float) for name in ("clip", "beta1", "beta2", "step_size", "correction", "eps")),
    )


def update(arguments: Update, *, apply: bool) -> None:
    """Norms of the gradients, or the gradients again and Adam with them."""
    call("pm_update", ctypes.byref(arguments), LONG(int(apply)))
