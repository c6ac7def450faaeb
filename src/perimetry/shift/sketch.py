"""Small summaries of streams that can be merged in any order: pair counts, a bottom-k sample, log-spaced histograms."""

from typing import Final, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.runtime import generator

__all__ = ["BottomK", "LogBins", "PairCounts", "histogram_quantile", "keyed_hash", "row_hash"]

NEVER: Final = 2**62
_MIX: Final = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def keyed_hash(x: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """A well-mixed, non-negative 62-bit hash of each int64 (the finaliser of splitmix64, Steele et al. 2014)."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * _MIX[0]
    x = (x ^ ((x >> 27) & (2**37 - 1))) * _MIX[1]
    return (x ^ ((x >> 31) & (2**33 - 1))) & (NEVER - 1)


def row_hash(words: Int[Tensor, "row word"], seed: int) -> Int[Tensor, " row"]:
    """Hash of the content of each row under a key: a random linear form modulo 2^64, then mixed.

    Equal rows hash alike; two different ones collide with a chance near 2^-62.
    """
    draw = generator(seed)
    key = torch.randint(-(2**62), 2**62, (words.shape[1],), generator=draw, dtype=torch.int64) * 2 + 1
    return keyed_hash((words * key).sum(1))


class LogBins(NamedTuple):
    """Log-spaced bins for positive values; what lies outside goes into the first or the last one."""

    octave: float
    """Power of two at which the first bin starts."""
    per_octave: int
    """Bins to each doubling."""
    number: int
    """Number of bins."""

    def locate(self, values: Float[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Bin of each value.

        >>> LogBins(0.0, 1, 4).locate(torch.tensor([0.0, 1.0, 3.0, 100.0])).tolist()
        [0, 0, 1, 3]
        """
        exponent = (values.clamp_min(1e-30).log2() - self.octave) * self.per_octave
        return exponent.floor().clamp(0, self.number - 1).long()

    def upper(self, position: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The value at a fractional bin position (0 is the start of the first bin)."""
        return torch.exp2(position / self.per_octave + self.octave)


def histogram_quantile(
    counts: Int[Tensor, "row bin"], zeros: Int[Tensor, " row"], q: float, bins: LogBins
) -> Float[Tensor, " row"]:
    """Quantile of each row of counts, `zeros` values of exactly 0 included; interpolated within the bin.

    A row whose quantile falls among its zeros has the quantile 0. Exact to the relative width of a bin,
    `2 ** (1 / per_octave) - 1`.

    >>> bins = LogBins(0.0, 1, 4)
    >>> histogram_quantile(torch.tensor([[0, 4, 0, 0]]), torch.tensor([4]), 0.75, bins).tolist()
    [2.8284270763397217]
    """
    cumulative = counts.cumsum(1).double() + zeros[:, None]
    wanted = q * cumulative[:, -1]
    at = (cumulative < wanted[:, None]).sum(1).clamp_max(bins.number - 1)
    before = torch.where(at > 0, cumulative.gather(1, (at - 1).clamp_min(0)[:, None])[:, 0], zeros.double())
    inside = counts.gather(1, at[:, None])[:, 0].double().clamp_min(1)
    value = bins.upper(at + ((wanted - before) / inside).clamp(0, 1))
    return torch.where(wanted <= zeros, torch.zeros_like(value), value).float()


@final
class PairCounts:
    """How often each ordered pair (a, b) of latents was seen; exact, sparse, merged in any order."""

    def __init__(self, width: int, keys: Tensor | None = None, counts: Tensor | None = None) -> None:
        """`keys` are `a * width + b`, sorted and distinct, with their counts."""
        self.width = width
        self._keys = torch.zeros(0, dtype=torch.int64) if keys is None else keys
        self._counts = torch.zeros(0, dtype=torch.int64) if counts is None else counts
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._waiting = 0

    def add(self, first: Int[Tensor, " pair"], second: Int[Tensor, " pair"]) -> None:
        """Count these pairs once each."""
        keys, counts = torch.unique(first * self.width + second, return_counts=True)
        self._offer(keys, counts)
        # Merging costs a sort of everything; waiting until the news equals the old keeps the total near linear.
        if self._waiting > max(self._keys.numel(), 2**18):
            self._compact()

    def _offer(self, keys: Tensor, counts: Tensor) -> None:
        self._pending.append((keys, counts))
        self._waiting += keys.numel()

    def _compact(self) -> None:
        if not self._pending:
            return
        keys = torch.cat([self._keys, *(k for k, _ in self._pending)])
        counts = torch.cat([self._counts, *(c for _, c in self._pending)])
        self._keys, inverse = torch.unique(keys, return_inverse=True)
        self._counts = torch.zeros_like(self._keys).index_add_(0, inverse, counts)
        self._pending, self._waiting = [], 0

    def table(self) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
        """Sorted distinct keys `a * width + b`, and their counts."""
        self._compact()
        return self._keys, self._counts

    def merge(self, other: "PairCounts") -> "PairCounts":
        """The counts of both."""
        out = PairCounts(self.width, *self.table())
        out._offer(*other.table())
        out._compact()
        return out


@final
class BottomK:
    """The `capacity` distinct rows with the smallest keys: a random sample that does not depend on the order of arrival.

    Rows that hash alike are the same row and are kept once (Cohen and Kaplan 2007, bottom-k sketches).
    """

    def __init__(self, capacity: int, keys: Tensor, columns: dict[str, Tensor], pads: dict[str, int]) -> None:
        """`keys` sorted and distinct; `pads` gives the filler of columns whose second axis may grow (at its end)."""
        self.capacity = capacity
        self.pads = pads
        self._keys = keys
        self._columns = columns
        self._pending: list[tuple[Tensor, dict[str, Tensor]]] = []
        self._waiting = 0

    @property
    def keys(self) -> Int[Tensor, " row"]:
        """Keys of the rows, ascending."""
        self._compact()
        return self._keys

    @property
    def columns(self) -> dict[str, Tensor]:
        """The rows, in the order of their keys."""
        self._compact()
        return self._columns

    def wants(self, keys: Int[Tensor, " row"]) -> Bool[Tensor, " row"]:
        """Which rows may still enter: some of those that waiting rows would keep out are let in, none is left out."""
        if self._keys.numel() < self.capacity:
            return torch.ones_like(keys, dtype=torch.bool)
        return keys < self._keys[-1]

    def offer(self, keys: Int[Tensor, " row"], columns: dict[str, Tensor]) -> None:
        """Show rows to the sample."""
        low = self.wants(keys)
        if not bool(low.all()):
            keys, columns = keys[low], {name: column[low] for name, column in columns.items()}
        if not keys.numel():
            return
        self._pending.append((keys, columns))
        self._waiting += keys.numel()
        # Joining copies the whole sample; waiting for as many rows again keeps the copies few.
        if self._waiting >= self.capacity:
            self._compact()

    def _compact(self) -> None:
        if not self._pending:
            return
        both = torch.cat([self._keys, *(keys for keys, _ in self._pending)])
        order = torch.argsort(both, stable=True)
        ranked = both[order]
        distinct = torch.ones_like(ranked, dtype=torch.bool)
        distinct[1:] = ranked[1:] != ranked[:-1]
        keep = order[distinct][: self.capacity]
        parts = [self._columns, *(columns for _, columns in self._pending)]
        self._keys = both[keep]
        self._columns = {name: self._join(name, [part[name] for part in parts])[keep] for name in self._columns}
        self._pending, self._waiting = [], 0
        self._trim()

    def _join(self, name: str, parts: list[Tensor]) -> Tensor:
        if name in self.pads:
            wide = max(part.shape[1] for part in parts)
            parts = [torch.nn.functional.pad(part, (0, wide - part.shape[1]), value=self.pads[name]) for part in parts]
        return torch.cat(parts)

    def _trim(self) -> None:
        """Drop the filler that no row needs, so that the tables do not tell what was seen and dropped."""
        used = [(self._columns[name] != pad).any(0).sum() for name, pad in self.pads.items()]
        for name in self.pads:
            self._columns[name] = self._columns[name][:, : max(1, *map(int, used))]

    def merge(self, other: "BottomK") -> "BottomK":
        """The sample of both streams together."""
        out = BottomK(self.capacity, self.keys, dict(self.columns), self.pads)
        out.offer(other.keys, other.columns)
        return out
