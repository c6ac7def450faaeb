"""Rings of words with a known cyclic order, such as the months: how far apart a model holds them, and what an edit does to that.

Source: representation shattering, R = ||D* - D|| / ||D|| over distance matrices before and after an edit (arXiv 2410.17194); the split
of R into size and shape is ours.
"""

import math
from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.errors import ConfigError, TooFewSamples, WidthMismatch
from perimetry.measures.stats import spearman

__all__ = [
    "LEAST_ORDER",
    "Shattering",
    "cyclic_distances",
    "index_beside",
    "ring_distances",
    "ring_order",
    "shattering",
]

Distances = Float[Tensor, "word word"]
Others = Float[Tensor, "other other"]

LEAST_ORDER: Final = 0.5
"""Rank correlation with cyclic distance below which a ring is no ring for this model, and says nothing of an edit."""
LEAST_WORDS: Final = 4


class Shattering(NamedTuple):
    """How far a matrix of distances has moved. `r ** 2 == (scale - 1) ** 2 + scale * r_scaled ** 2`: size and shape apart."""

    r: float
    """||D* - D|| / ||D||, Frobenius norms; 0 = nothing moved."""
    r_scaled: float
    """The same with each matrix divided by its norm, from 0 to sqrt(2): loss of structure, whatever the size."""
    scale: float
    """||D*|| / ||D||: 1 = as large as before; far above, a norm blow-up."""

    @property
    def by_size(self) -> float:
        """Share of r^2 that a mere change of size makes; 0 where nothing moved."""
        return min(1.0, (self.scale - 1) ** 2 / self.r**2) if self.r > 0 else 0.0


def ring_distances(states: Float[Tensor, "word d"]) -> Distances:
    """Euclidean distances between the states of words, in float64.

    >>> ring_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]])).tolist()
    [[0.0, 5.0], [5.0, 0.0]]
    """
    exact = states.double()
    # The faster form of cdist subtracts large numbers; here a hair's breadth is the result.
    return torch.cdist(exact, exact, compute_mode="donot_use_mm_for_euclid_dist")


def cyclic_distances(positions: Int[Tensor, " word"]) -> Distances:
    """Steps between places of a ring, the shorter way round; `positions`: the place of each word, a permutation of 0..n-1.

    >>> cyclic_distances(torch.tensor([0, 1, 2, 3]))[0].tolist()
    [0.0, 1.0, 2.0, 1.0]
    """
    apart = (positions[:, None] - positions[None]).abs().double()
    return torch.minimum(apart, len(positions) - apart)


def ring_order(distances: Distances, cyclic: Others) -> float:
    """Spearman correlation, over pairs of words, of distances with cyclic ones; 1 = the ring in perfect order.

    No interval: pairs share words and are no sample. Errors: `TooFewSamples` below 4 words, `WidthMismatch` for unequal sizes.
    """
    n = len(distances)
    if n < LEAST_WORDS:
        raise TooFewSamples(f"a ring of {n} words has no order to check; give {LEAST_WORDS} or more")
    if distances.shape != cyclic.shape:
        raise WidthMismatch(f"{n} words and {len(cyclic)} places on the ring; give one place for each word")
    one, other = torch.triu_indices(n, n, 1)
    return spearman(distances[one, other], cyclic[one, other].to(distances.device)).estimate


def shattering(before: Distances, after: Others) -> Shattering:
    """How far distances have moved. Errors: `WidthMismatch` for unequal sizes, `ConfigError` where all words were at one point.

    >>> near = torch.tensor([[0.0, 2.0], [2.0, 0.0]])
    >>> [round(x, 6) for x in shattering(near, 3 * near)]
    [2.0, 0.0, 3.0]
    """
    if before.shape != after.shape:
        raise WidthMismatch(f"{len(before)} words before and {len(after)} after; measure the same ones")
    one, other = before.double(), after.double()
    size, new = float(one.norm()), float(other.norm())
    if size == 0 or not math.isfinite(size):
        raise ConfigError("all words of the ring are at one point; take another layer, or other words")
    r_scaled = float((other / new - one / size).norm()) if new > 0 else 1.0
    return Shattering(float((other - one).norm()) / size, r_scaled, new / size)


def index_beside(edit: float, drawn: Float[Tensor, " draw"]) -> float:
    """How many times larger a reading is than its mean over drawn updates of the same norm (the shattering index, for R).

    1 = what any update of that size does. Without a draw, or where no drawn update moved anything, it is NaN.

    >>> index_beside(0.5, torch.tensor([0.125, 0.375]))
    2.0
    """
    mean = float(drawn.double().mean()) if drawn.numel() else 0.0
    return edit / mean if mean else math.nan
