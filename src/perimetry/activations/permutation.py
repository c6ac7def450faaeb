"""A keyed permutation of [0, n) that is computed for any index alone: a global shuffle without a buffer."""

import hashlib
import math
from typing import final

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["Permutation", "shuffled_ids"]

ROUNDS = 8
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


def _mix(x: np.ndarray, key: np.uint64) -> np.ndarray:
    """The finaliser of splitmix64, keyed."""
    x = (x + key) * GOLDEN
    x = (x ^ (x >> SHIFTS[0])) * MIX[0]
    x = (x ^ (x >> SHIFTS[1])) * MIX[1]
    return x ^ (x >> SHIFTS[2])


@final
class Permutation:
    """A bijection of [0, n), given by `n`, `seed` and `epoch`.

    A generalised Feistel network (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002) over
    Z_a x Z_b with a * b just above n; indices that fall outside [0, n) walk on.
    """

    def __init__(self, n: int, seed: int, epoch: int = 0) -> None:
        if n < 1:
            raise ValueError(f"a permutation of {n} items; wanted at least one")
        self.n = n
        """Number of items."""
        self._a = math.isqrt(n - 1) + 1 if n > 1 else 1
        self._b = -(-n // self._a)
        digest = hashlib.shake_256(f"{n}:{seed}:{epoch}".encode()).digest(8 * ROUNDS)
        self._keys = np.frombuffer(digest, dtype="<u8").astype(np.uint64)

    def _once(self, x: np.ndarray) -> np.ndarray:
        a, b = np.uint64(self._a), np.uint64(self._b)
        left, right = x // b, x % b
        for i, key in enumerate(self._keys):
            if i % 2 == 0:
                left = (left + _mix(right, key) % a) % a
            else:
                right = (right + _mix(left, key) % b) % b
        return left * b + right

    def __call__(self, index: Int[Tensor, " item"]) -> Int[Tensor, " item"]:
        """Where each index goes; indices must lie in [0, n)."""
        out = self._once(index.cpu().numpy().astype(np.uint64))
        outside = out >= np.uint64(self.n)
        while outside.any():
            out[outside] = self._once(out[outside])
            outside = out >= np.uint64(self.n)
        return torch.from_numpy(out.astype(np.int64))


def shuffled_ids(n: int, seed: int, start: int, count: int) -> Int[Tensor, " item"]:
    """Items `start` to `start + count` of the endless sequence of shuffled epochs of [0, n).

    Every epoch visits every item once, in another order; a batch may straddle two epochs.
    """
    parts: list[Tensor] = []
    at = start
    while at < start + count:
        epoch, first = divmod(at, n)
        last = min(n, first + start + count - at)
        parts.append(Permutation(n, seed, epoch)(torch.arange(first, last)))
        at += last - first
    return torch.cat(parts)
