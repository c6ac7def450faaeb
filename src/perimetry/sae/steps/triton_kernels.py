"""Kernels of the sparse training step for GPUs, in the language of Triton; `device` launches them.

Triton is no dependency: `kernel` imports it when the first kernel is wanted, which is why the functions below carry no
decorator and name `tl` only inside. Each takes float32 matrices row by row and int64 places. Every program writes places
that no other one writes, and its sums run in a fixed order: there are no atomics, and results do not depend on how
programs are scheduled.
"""

import functools
import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, no_type_check

__all__ = ["adam_rows", "gather_rows", "kernel", "project_rows", "sampled_products", "segment_rows"]

# All that the signatures below need of `triton.language` before it is there.
tl: Any = SimpleNamespace(constexpr="tl.constexpr")


@functools.cache
def kernel(function: Callable[..., None]) -> Any:
    """A function of this file as Triton compiles it, or runs it in its interpreter. Errors: `ImportError`."""
    global tl
    triton = importlib.import_module("triton")
    tl = importlib.import_module("triton.language")
    return triton.jit(function)


@no_type_check
def gather_rows(
    first,
    last,
    columns,
    values,
    weights,
    bias,
    target,
    scale,
    out,
    errors,
    d,
    FUSED: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):
    """Weighted sum of the weight rows of entries `first` to `last`; `FUSED` makes it the scaled residual and its square."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < d
    start = tl.load(first + row)
    stop = tl.load(last + row)
    total = tl.zeros((BLOCK,), tl.float32)
    for begin in range(start, stop, TILE):
        entry = begin + tl.arange(0, TILE)
        live = entry < stop
        column = tl.load(columns + entry, mask=live, other=0)
        value = tl.load(values + entry, mask=live, other=0.0)
        both = live[:, None] & inside[None, :]
        part = tl.load(weights + column[:, None] * d + at[None, :], mask=both, other=0.0)
        total += tl.sum(value[:, None] * part, axis=0)
    if FUSED:
        wanted = tl.load(target + row * d + at, mask=inside, other=0.0) - tl.load(bias + at, mask=inside, other=0.0)
        left = tl.where(inside, wanted - total, 0.0)
        tl.store(errors + row * tl.num_programs(1) + tl.program_id(1), tl.sum(left * left, axis=0))
        total = left * scale
    tl.store(out + row * d + at, total, mask=inside)


@no_type_check
def sampled_products(offsets, columns, upstream, weights, out, d, BLOCK: tl.constexpr, TILE: tl.constexpr):
    """For each entry of a row the inner product of the row's upstream and the entry's weight row."""
    row = tl.program_id(0).to(tl.int64)
    start = tl.load(offsets + row)
    stop = tl.load(offsets + row + 1)
    for begin in range(start, stop, TILE):
        entry = begin + tl.arange(0, TILE)
        live = entry < stop
        column = tl.load(columns + entry, mask=live, other=0)
        total = tl.zeros((TILE,), tl.float32)
        for left in range(0, d, BLOCK):
            at = left + tl.arange(0, BLOCK)
            inside = at < d
            gradient = tl.load(upstream + row * d + at, mask=inside, other=0.0)
            both = live[:, None] & inside[None, :]
            part = tl.load(weights + column[:, None] * d + at[None, :], mask=both, other=0.0)
            total += tl.sum(part * gradient[None, :], axis=1)
        tl.store(out + entry, total, mask=live)


@no_type_check
def segment_rows(
    starts, rows, values, upstream, ends, pieces, out, d, SPAN: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr
):
    """For each latent the weighted sum of upstream rows, or, where it has more than `SPAN` entries, of its pieces."""
    latent = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < d
    start = tl.load(starts + latent)
    stop = tl.load(starts + latent + 1)
    stop = tl.where(stop - start > SPAN, start, stop)
    total = tl.zeros((BLOCK,), tl.float32)
    for begin in range(start, stop, TILE):
        entry = begin + tl.arange(0, TILE)
        live = entry < stop
        row = tl.load(rows + entry, mask=live, other=0)
        value = tl.load(values + entry, mask=live, other=0.0)
        both = live[:, None] & inside[None, :]
        part = tl.load(upstream + row[:, None] * d + at[None, :], mask=both, other=0.0)
        total += tl.sum(value[:, None] * part, axis=0)
    start = tl.load(ends + latent)
    stop = tl.load(ends + latent + 1)
    for begin in range(start, stop, TILE):
        piece = begin + tl.arange(0, TILE)
        both = (piece < stop)[:, None] & inside[None, :]
        total += tl.sum(tl.load(pieces + piece[:, None] * d + at[None, :], mask=both, other=0.0), axis=0)
    tl.store(out + latent * d + at, total, mask=inside)


@no_type_check
def project_rows(gradient, weights, squares, d, PROJECT: tl.constexpr, BLOCK: tl.constexpr):
    """Squared norm of each gradient row; with `PROJECT`, after its part along the weight row was taken away in place."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < d
    slope = tl.load(gradient + row * d + at, mask=inside, other=0.0)
    if PROJECT:
        weight = tl.load(weights + row * d + at, mask=inside, other=0.0)
        slope -= tl.sum(slope * weight, axis=0) * weight
        tl.store(gradient + row * d + at, slope, mask=inside)
    tl.store(squares + row, tl.sum(slope * slope, axis=0))


@no_type_check
def adam_rows(
    weights,
    gradient,
    mean,
    spread,
    d,
    clip,
    beta1,
    rest1,
    beta2,
    rest2,
    step_size,
    correction,
    eps,
    tiny,
    UNIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Adam on each row with its gradient times `clip`; with `UNIT` the row is brought back to norm 1."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < d
    place = row * d + at
    slope = tl.load(gradient + place, mask=inside, other=0.0) * clip
    first = beta1 * tl.load(mean + place, mask=inside, other=0.0) + rest1 * slope
    second = beta2 * tl.load(spread + place, mask=inside, other=0.0) + rest2 * slope * slope
    weight = tl.load(weights + place, mask=inside, other=0.0)
    weight -= step_size * first / (tl.sqrt(second) / correction + eps)
    if UNIT:
        weight = tl.where(inside, weight, 0.0)
        weight /= tl.maximum(tl.sqrt(tl.sum(weight * weight, axis=0)), tiny)
    tl.store(mean + place, first, mask=inside)
    tl.store(spread + place, second, mask=inside)
    tl.store(weights + place, weight, mask=inside)
