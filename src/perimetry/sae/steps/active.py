"""The active entries of a batch as a ragged matrix: for each token the latents that fire and their values.

The matrix is stored by rows (CSR). Products over its columns need the same entries in column order; that order is found
once a step by a counting sort, so that every sum runs in a fixed order whatever the number of threads.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import Latents
from perimetry.sae.steps import native

__all__ = ["Active", "ByColumn", "flat_nonzero", "sorted_sums", "stack_rows"]


class ByColumn(NamedTuple):
    """The same entries ordered by latent, tokens ascending within a latent."""

    order: Int[Tensor, " entry"]
    """Position of each entry in the row order."""
    rows: Int[Tensor, " entry"]
    """Token of each entry, in column order."""
    offsets: Int[Tensor, " d_sae_plus_1"]
    """Where each latent begins."""


class Active(NamedTuple):
    """Entries of a (token, latent) matrix, by rows; latents need not be sorted within a row."""

    offsets: Int[Tensor, " token_plus_1"]
    """Where each token begins; the last is the number of entries."""
    columns: Int[Tensor, " entry"]
    """Latent of each entry."""
    values: Float[Tensor, " entry"]
    """Value of each entry; gradients of entries travel in the same shape."""
    width: int
    """Number of latents."""

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.offsets.shape[0] - 1

    @property
    def entries(self) -> int:
        """Number of entries."""
        return self.columns.shape[0]

    @property
    def density(self) -> float:
        """Entries as a share of the full matrix, 0 to 1."""
        return self.entries / max(1, self.tokens * self.width)

    def rows(self) -> Int[Tensor, " entry"]:
        """Token of each entry."""
        return torch.repeat_interleave(torch.arange(self.tokens, device=self.columns.device), self.offsets.diff())

    def replace(self, values: Float[Tensor, " entry"]) -> "Active":
        """The same places with other values."""
        return self._replace(values=values)

    def keep(self, mask: Tensor) -> "Active":
        """Only the entries where `mask` is true."""
        places = flat_nonzero(mask)
        offsets = torch.searchsorted(places, self.offsets)
        return Active(offsets, self.columns[places], self.values[places], self.width)

    def chunk(self, start: int, stop: int) -> "Active":
        """Tokens `start` to `stop`."""
        low, high = int(self.offsets[start]), int(self.offsets[stop])
        offsets = self.offsets[start : stop + 1] - low
        return Active(offsets, self.columns[low:high], self.values[low:high], self.width)

    def dense(self) -> Latents:
        """The full matrix; for chunks and tests.

        >>> Active(torch.tensor([0, 1, 1]), torch.tensor([2]), torch.tensor([5.0]), 3).dense()
        tensor([[0., 0., 5.],
                [0., 0., 0.]])
        """
        out = self.values.new_zeros(self.tokens, self.width)
        out.view(-1)[self.rows() * self.width + self.columns] = self.values
        return out

    def column_sums(self, values: Float[Tensor, " entry"]) -> Float[Tensor, " d_sae"]:
        """Sum of one number an entry over the tokens of each latent, in row order, gathered in float64."""
        if values.device.type != "cpu":
            return sorted_sums(self.columns, values, self.width)
        return torch.bincount(self.columns, values.double(), self.width).to(values.dtype)

    def by_column(self) -> ByColumn:
        """The column order, by a counting sort."""
        device = self.columns.device
        if device.type != "cpu":
            order = torch.argsort(self.columns, stable=True)
            counts = torch.bincount(self.columns, minlength=self.width)
            offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
            return ByColumn(order, self.rows()[order], offsets)
        if native.usable(self.values) and self.columns.is_contiguous() and self.offsets.is_contiguous():
            order, rows, starts = native.by_column(self.offsets, self.columns, self.width)
            return ByColumn(order, rows, starts)
        places = np.arange(self.entries, dtype=np.int64)
        matrix = scipy.sparse.csr_matrix(
            (places, self.columns.numpy(), self.offsets.numpy()), shape=(self.tokens, self.width)
        ).tocsc()
        return ByColumn(
            torch.from_numpy(matrix.data),
            torch.from_numpy(matrix.indices.astype(np.int64, copy=False)),
            torch.from_numpy(matrix.indptr.astype(np.int64, copy=False)),
        )


def flat_nonzero(mask: Tensor) -> Int[Tensor, " entry"]:
    """Flat positions where `mask` is true, ascending; faster than `torch.nonzero` where few are."""
    if mask.device.type != "cpu":
        return mask.reshape(-1).nonzero()[:, 0]
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def sorted_sums(columns: Int[Tensor, " entry"], values: Float[Tensor, " entry"], width: int) -> Float[Tensor, " d_sae"]:
    """Sums by latent without atomic additions, which a GPU would make in another order each time."""
    ordered = values.double()[torch.argsort(columns, stable=True)]
    offsets = torch.nn.functional.pad(torch.bincount(columns, minlength=width).cumsum(0), (1, 0))
    return torch.segment_reduce(ordered, "sum", offsets=offsets, unsafe=True, initial=0.0).to(values.dtype)


def stack_rows(parts: list[Active]) -> Active:
    """One matrix of several, rows in order."""
    offsets = [parts[0].offsets]
    total = parts[0].entries
    for part in parts[1:]:
        offsets.append(part.offsets[1:] + total)
        total += part.entries
    return Active(
        torch.cat(offsets),
        torch.cat([p.columns for p in parts]),
        torch.cat([p.values for p in parts]),
        parts[0].width,
    )
