"""The step's kernels on a GPU, on tensors. Each has a twin in torch operations that gives the same numbers.

They take contiguous tensors of one CUDA device and give None (or False) where `usable` says no: on the CPU, in float64,
without Triton. A kernel that does not compile or start is reported once, and from then on torch operations take the place
of all.
"""

import importlib
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from perimetry.sae.steps import triton_kernels as kernels
from perimetry.sae.steps.native.build import wanted

__all__ = ["adam", "decode", "project", "residual", "sampled", "transposed", "usable"]

DEVICES = {"cuda"}
READ = (torch.float32, torch.int64)
SPAN = 256
"""Entries of a latent that one program adds up; more are added up in pieces of this many, and then the pieces."""
BLOCK_LIMIT = 512
"""Columns of one program: with all rows of a block at work at once, the block's share of the weights stays in the cache."""
TILE_ELEMENTS = 4096
ROW_LIMIT = 8192
"""Longest row that the update holds in registers."""

log = logging.getLogger(__name__)
_failure: list[str] = []


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels are there and can read these tensors: numbers in float32, places in int64."""
    good = all(t.device.type in DEVICES and t.dtype in READ and t.is_contiguous() for t in tensors)
    return good and wanted() and not _failure and _imported()


def _imported() -> bool:
    try:
        importlib.import_module("triton.language")
    except Exception as error:  # a broken Triton raises more than ImportError
        _give_up(f"Triton cannot be imported ({error})")
    return not _failure


def _give_up(why: str) -> None:
    if not _failure:
        log.warning("the training step runs on torch operations, which is slower: %s", why)
    _failure.append(why)


def _run(
    function: Callable[..., None], grid: tuple[int, ...], *arguments: Any, warps: int = 4, **constants: Any
) -> bool:
    """Launch a kernel; False where it cannot be compiled or started."""
    device = next(a for a in arguments if isinstance(a, Tensor)).device
    place: AbstractContextManager[Any] = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    try:
        with place:
            kernels.kernel(function)[grid](*arguments, **constants, num_warps=warps, enable_fp_fusion=True)
    except Exception as error:  # compilers and drivers have exceptions of their own
        _give_up(f"kernel {function.__name__} failed ({error})")
        return False
    return True


def _tiles(d: int) -> dict[str, int]:
    block = min(BLOCK_LIMIT, max(16, 1 << (d - 1).bit_length()))
    return {"BLOCK": block, "TILE": max(8, min(32, TILE_ELEMENTS // block))}


def _blocks(d: int) -> int:
    return -(-d // _tiles(d)["BLOCK"])


def _gather(first: Tensor, last: Tensor, columns: Tensor, values: Tensor, weights: Tensor) -> Tensor | None:
    rows, d = first.shape[0], weights.shape[1]
    out = weights.new_empty(rows, d)
    # The three arguments of the residual are not read.
    inputs = first, last, columns, values, weights, weights, weights, 1.0
    done = _run(kernels.gather_rows, (rows, _blocks(d)), *inputs, out, out, d, FUSED=False, **_tiles(d))
    return out if done else None


def decode(offsets: Tensor, columns: Tensor, values: Tensor, weights: Tensor) -> Tensor | None:
    """For each row the sum of value times weight row; None where it must be had otherwise."""
    if not usable(offsets, columns, values, weights):
        return None
    return _gather(offsets[:-1], offsets[1:], columns, values, weights)


def sampled(offsets: Tensor, columns: Tensor, upstream: Tensor, weights: Tensor) -> Tensor | None:
    """For each entry the inner product of its upstream row and its weight row; None where it must be had otherwise."""
    if not usable(offsets, columns, upstream, weights):
        return None
    out = upstream.new_empty(columns.shape[0])
    rows, d = upstream.shape
    inputs = offsets, columns, upstream, weights
    return out if _run(kernels.sampled_products, (rows,), *inputs, out, d, **_tiles(d)) else None


def residual(
    offsets: Tensor, columns: Tensor, values: Tensor, weights: Tensor, bias: Tensor, target: Tensor, scale: float
) -> tuple[Tensor, float] | None:
    """Upstream gradient (`scale` times the residual) and the summed squared error; None where they must be had otherwise."""
    if not usable(offsets, columns, values, weights, bias, target):
        return None
    rows, d = target.shape
    upstream, errors = torch.empty_like(target), target.new_empty(rows, _blocks(d))
    inputs = offsets, offsets[1:], columns, values, weights, bias, target, float(scale)
    done = _run(kernels.gather_rows, (rows, _blocks(d)), *inputs, upstream, errors, d, FUSED=True, **_tiles(d))
    return (upstream, float(errors.double().sum())) if done else None


def _pieces(starts: Tensor, entries: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where each latent's pieces begin, and first and last entry of each piece; latents of one piece have none.

    There is room for as many pieces as there can be, so that the host need not wait for their number.
    """
    counts = starts.diff()
    pieces = torch.where(counts > SPAN, torch.div(counts + SPAN - 1, SPAN, rounding_mode="floor"), 0)
    ends = torch.nn.functional.pad(pieces.cumsum(0), (1, 0))
    number = torch.arange(2 * entries // SPAN, device=starts.device)
    latent = (torch.searchsorted(ends, number, right=True) - 1).clamp_(max=counts.shape[0] - 1)
    first = starts[latent] + (number - ends[latent]) * SPAN
    last = torch.minimum(first + SPAN, starts[latent + 1])
    there = number < ends[-1]
    return ends, torch.where(there, first, 0), torch.where(there, last, 0)


def transposed(starts: Tensor, order: Tensor, row_of: Tensor, values: Tensor, upstream: Tensor) -> Tensor | None:
    """For each latent the sum over its entries of value times upstream row; None where it must be had otherwise."""
    if not usable(starts, order, row_of, values, upstream):
        return None
    width, d = starts.shape[0] - 1, upstream.shape[1]
    ordered = values[order]
    ends, first, last = _pieces(starts, order.shape[0])
    pieces = _gather(first, last, row_of, ordered, upstream) if first.shape[0] else upstream
    if pieces is None:
        return None
    out = upstream.new_empty(width, d)
    inputs = starts, row_of, ordered, upstream, ends, pieces
    done = _run(kernels.segment_rows, (width, _blocks(d)), *inputs, out, d, SPAN=SPAN, **_tiles(d))
    return out if done else None


def _row(d: int) -> dict[str, int]:
    block = max(16, 1 << (d - 1).bit_length())
    return {"BLOCK": block, "warps": 4 if block <= 2048 else 8}


def project(gradient: Tensor, weights: Tensor, *, along: bool) -> Tensor | None:
    """Squared norm of each gradient row; `along` first takes its part along the weight row away, in place.

    None where it must be had otherwise; nothing is changed then.
    """
    rows, d = gradient.shape
    if d > ROW_LIMIT or not usable(gradient, weights):
        return None
    squares = gradient.new_empty(rows)
    inputs = gradient, weights, squares
    return squares if _run(kernels.project_rows, (rows,), *inputs, d, PROJECT=along, **_row(d)) else None


def adam(
    weights: Tensor,
    gradient: Tensor,
    moments: tuple[Tensor, Tensor],
    *,
    clip: float,
    betas: tuple[float, float],
    step: int,
    rate: float,
    eps: float,
    unit: bool,
) -> bool:
    """Update number `step` (from 1) of a matrix in place; `unit` brings its rows back to norm 1.

    False where it must be had otherwise; nothing is changed then.
    """
    (rows, d), (beta1, beta2) = weights.shape, betas
    if d > ROW_LIMIT or not usable(weights, gradient, *moments):
        return False
    numbers = clip, beta1, 1 - beta1, beta2, 1 - beta2, rate / (1 - beta1**step), (1 - beta2**step) ** 0.5, eps
    tiny = torch.finfo(torch.float32).tiny
    return _run(kernels.adam_rows, (rows,), weights, gradient, *moments, d, *numbers, tiny, UNIT=unit, **_row(d))
