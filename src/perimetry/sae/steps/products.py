"""Products of a sparse (token, latent) matrix with dense ones: the whole cost of a step beside the encoder product.

Each function has two ways: by entries, and, where a large share of the matrix is active, by dense chunks of rows, which
the processor multiplies faster than it gathers. The choice depends on the density alone, so that it is the same in every
run. Every sum has a fixed order; nothing is added atomically on the CPU.
"""

import warnings
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from perimetry.axes import Acts, Decoder, ModelBias
from perimetry.sae.steps import device, native
from perimetry.sae.steps.active import Active, ByColumn
from perimetry.sae.steps.costs import crossover

__all__ = [
    "CHUNK_ELEMENTS",
    "DENSE_ABOVE",
    "chunk_rows",
    "decode",
    "decode_slots",
    "dense_above",
    "residual",
    "row_chunks",
    "sampled",
    "square_sum",
    "transposed",
]

CHUNK_ELEMENTS = 2**23
"""Elements of one dense chunk (32 MiB in float32): larger ones leave the cache, smaller ones starve the product."""
DENSE_ABOVE: float | None = None
"""Density above which dense chunks beat gathers; None is what was measured of this host."""


def dense_above() -> float:
    """Density above which dense chunks beat gathers on this host."""
    return crossover() if DENSE_ABOVE is None else DENSE_ABOVE


def chunk_rows(width: int) -> int:
    """Rows of a chunk for a matrix of `width` columns.

    >>> chunk_rows(16384), chunk_rows(64)
    (512, 2048)
    """
    return max(1, min(2048, CHUNK_ELEMENTS // max(1, width)))


def row_chunks(tokens: int, width: int) -> Iterator[tuple[int, int]]:
    """Start and stop of each chunk of rows."""
    step = chunk_rows(width)
    for start in range(0, tokens, step):
        yield start, min(start + step, tokens)


def square_sum(rows: Acts) -> float:
    """Sum of squares, without a matrix of them.

    >>> square_sum(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    26.0
    """
    return float(torch.linalg.vector_norm(rows, dim=1).double().square().sum())


def decode(active: Active, weights: Decoder) -> Acts:
    """Rows of `weights` added up by the entries of each token: the matrix times `weights`."""
    if active.density > dense_above():
        out = weights.new_empty(active.tokens, weights.shape[1])
        for start, stop in row_chunks(active.tokens, active.width):
            torch.mm(active.chunk(start, stop).dense(), weights, out=out[start:stop])
        return out
    if not active.entries:
        return weights.new_zeros(active.tokens, weights.shape[1])
    if native.usable(active.values, weights):
        return native.decode(active.offsets, active.columns, active.values, weights)
    found = device.decode(active.offsets, active.columns, active.values, weights)
    if found is not None:
        return found
    return embedding_bag(active.columns, weights, active.offsets[:-1], mode="sum", per_sample_weights=active.values)


def decode_slots(columns: Int[Tensor, "token slot"], values: Float[Tensor, "token slot"], weights: Decoder) -> Acts:
    """`decode` of entries by slot; a slot with value 0 is empty."""
    (tokens, slots), width = columns.shape, weights.shape[0]
    if slots <= dense_above() * width and native.usable(values, weights):
        return native.decode_slots(columns, values, weights)
    offsets = torch.arange(tokens + 1, device=columns.device) * slots
    flat = values.reshape(-1)
    return decode(Active(offsets, columns.reshape(-1), flat, width).keep(flat != 0), weights)


def residual(active: Active, weights: Decoder, bias: ModelBias, target: Acts, scale: float) -> tuple[Acts, float]:
    """`scale` times what `target` leaves of the reconstruction, and the summed squared error of that."""
    if active.density <= dense_above():
        found = device.residual(active.offsets, active.columns, active.values, weights, bias, target, scale)
        if found is not None:
            return found
    left = target - decode(active, weights) - bias
    error = float(left.square().sum())
    return left.mul_(scale), error


def transposed(active: Active, order: ByColumn | None, upstream: Acts) -> Decoder:
    """The transposed matrix times `upstream`: for each latent the sum over its tokens.

    `order` is `active.by_column()`, shared by the products of a step; None makes it here where it is needed.
    """
    if active.density > dense_above():
        out = upstream.new_zeros(active.width, upstream.shape[1])
        for start, stop in row_chunks(active.tokens, active.width):
            out.addmm_(active.chunk(start, stop).dense().T, upstream[start:stop])
        return out
    if not active.entries:
        return upstream.new_zeros(active.width, upstream.shape[1])
    order = order or active.by_column()
    if native.usable(active.values, upstream):
        return native.transposed(order.offsets, order.order, order.rows, active.values, upstream)
    found = device.transposed(order.offsets, order.order, order.rows, active.values, upstream)
    if found is not None:
        return found
    return embedding_bag(
        order.rows, upstream, order.offsets[:-1], mode="sum", per_sample_weights=active.values[order.order]
    )


def sampled(active: Active, upstream: Acts, weights: Decoder) -> Float[Tensor, " entry"]:
    """Inner product of the token's upstream row and the latent's weights row, at the entries only.

    Weights of half precision are multiplied as float32.
    """
    if not active.entries:
        return upstream.new_zeros(0)
    if weights.dtype == torch.float16:
        if active.density <= dense_above() and native.halves() and native.usable(upstream):
            return native.sampled(active.offsets, active.columns, upstream, weights.contiguous())
        weights = weights.float()
    if active.density > dense_above():
        out = upstream.new_empty(active.entries)
        for start, stop in row_chunks(active.tokens, active.width):
            part = active.chunk(start, stop)
            low = int(active.offsets[start])
            flat = part.rows() * part.width + part.columns
            torch.take(upstream[start:stop] @ weights.T, flat, out=out[low : low + part.entries])
        return out
    if native.usable(active.values, upstream, weights):
        return native.sampled(active.offsets, active.columns, upstream, weights)
    found = device.sampled(active.offsets, active.columns, upstream, weights)
    if found is not None:
        return found
    if upstream.device.type == "cpu":
        empty = _csr(active.replace(torch.zeros_like(active.values)))
        return torch.sparse.sampled_addmm(empty, upstream, weights.T, beta=0.0).values()
    return _sampled_by_gather(active, upstream, weights)


def _csr(active: Active) -> Tensor:
    shape = (active.tokens, active.width)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(active.offsets, active.columns, active.values, shape, check_invariants=False)


def _sampled_by_gather(active: Active, upstream: Acts, weights: Decoder) -> Float[Tensor, " entry"]:
    rows = active.rows()
    out = upstream.new_empty(active.entries)
    step = max(1, CHUNK_ELEMENTS // weights.shape[1])
    for start in range(0, active.entries, step):
        part = slice(start, start + step)
        out[part] = (upstream[rows[part]] * weights[active.columns[part]]).sum(1)
    return out
