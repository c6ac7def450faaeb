"""Where scores lie, in a small table that merges with others in any order (after DDSketch, Masson et al. 2019).

Values fall into bins whose edges grow by 2 %, so that a quantile is off by at most 1 % of its value; the counts of bins
add, so that merging is exact and its order does not matter.
"""

import math
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Final, NamedTuple

__all__ = ["EMPTY", "RELATIVE_ERROR", "Sketch"]

RELATIVE_ERROR: Final = 0.01
"""A quantile lies this share of its value away at most (values under 1e-12 count as 0)."""

_GAMMA: Final = math.log((1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR))
_OFFSET: Final = 2_000
_LEAST: Final = 1e-12
_MOST: Final = 1e15
_HEAD: Final = struct.Struct("<BQdddd")
_VERSION: Final = 1
_FIRST: Final = 10_000


def _key(value: float) -> int:
    """Number of the bin: 0 for zero, below 0 for negative values; keys are ordered as the values are."""
    size = abs(value)
    if size < _LEAST:
        return 0
    return (1 if value > 0 else -1) * (math.ceil(math.log(min(size, _MOST)) / _GAMMA) + _OFFSET)


def _value(key: int) -> float:
    """Middle of the bin, in the sense that its relative distance to both edges is the same."""
    if not key:
        return 0.0
    return math.copysign(math.exp((abs(key) - _OFFSET) * _GAMMA) * (1 - RELATIVE_ERROR), key)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that more follow."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _numbers(data: bytes) -> list[int]:
    found, number, shift = [], 0, 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            found.append(number)
            number = shift = 0
    if shift:
        raise ValueError("no sketch: it is cut off")
    return found


class Sketch(NamedTuple):
    """Count, moments, extremes and binned quantiles of some values."""

    n: int
    """Values."""
    mean: float
    """Their mean; 0 where there are none."""
    squares: float
    """Sum of the squared distances to the mean."""
    least: float
    """Smallest value; infinite where there are none."""
    most: float
    """Largest value; minus infinity where there are none."""
    bins: Mapping[int, int]
    """Count of each bin that holds something."""

    @classmethod
    def of(cls, values: Iterable[float]) -> "Sketch":
        """The sketch of finite values."""
        found = sorted(values)
        if not found:
            return EMPTY
        mean = math.fsum(found) / len(found)
        squares = math.fsum((value - mean) ** 2 for value in found)
        return cls(len(found), mean, squares, found[0], found[-1], Counter(map(_key, found)))

    def merge(self, other: "Sketch") -> "Sketch":
        """The sketch of both sets of values together (Chan et al. 1979 for the moments)."""
        n = self.n + other.n
        if not self.n or not other.n:
            return self if self.n else other
        apart = other.mean - self.mean
        return Sketch(
            n,
            math.fsum((self.mean * self.n / n, other.mean * other.n / n)),
            math.fsum((self.squares, other.squares, apart * apart * self.n * other.n / n)),
            min(self.least, other.least),
            max(self.most, other.most),
            Counter(self.bins) + Counter(other.bins),
        )

    def quantile(self, q: float) -> float:
        """The value below which the share `q` of all lies, to 1 % of itself; NaN where there are none.

        >>> found = Sketch.of([1.0, 2.0, 3.0, 4.0, 100.0]).quantile(0.5)
        >>> abs(found - 3.0) <= 0.03
        True
        """
        if not self.n:
            return math.nan
        wanted, seen = q * (self.n - 1), 0
        for key in sorted(self.bins):
            seen += self.bins[key]
            if seen > wanted:
                return min(max(_value(key), self.least), self.most)
        return self.most

    def to_bytes(self) -> bytes:
        """Some three bytes a bin, the same for the same bins."""
        head = _HEAD.pack(_VERSION, self.n, self.mean, self.squares, self.least, self.most)
        keys = sorted(self.bins)
        steps = [now - before for before, now in zip([-_FIRST, *keys], keys, strict=False)]
        numbers = [number for step, key in zip(steps, keys, strict=True) for number in (step, self.bins[key])]
        return head + b"".join(map(_varint, numbers))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Sketch":
        """What `to_bytes` has written. Errors: `ValueError` for anything else."""
        try:
            version, n, mean, squares, least, most = _HEAD.unpack_from(data)
        except struct.error as error:
            raise ValueError("no sketch: it is too short") from error
        numbers = _numbers(data[_HEAD.size :])
        keys = accumulate(numbers[::2], initial=-_FIRST)
        next(keys)
        bins = dict(zip(keys, numbers[1::2], strict=False))
        if version != _VERSION or len(numbers) != 2 * len(bins) or sum(bins.values()) != n:
            raise ValueError("no sketch: its counts do not agree")
        return cls(n, mean, squares, least, most, bins)


EMPTY: Final = Sketch(0, 0.0, 0.0, math.inf, -math.inf, {})
"""The sketch of nothing."""
