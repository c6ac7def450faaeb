"""The linear models of the theory, in exact arithmetic of population averages: one layer, and two layers that mirror each other.

With `A = E[x x'] = diag(a)` a layer learns `W <- W - eta (W - I) A`. Two mirrored layers `W = U U'` learn
`U <- U - eta/2 [(W - I) A + A (W - I)] U`; U is stepped, never W, since Euler steps of W leave the cone of what U U' can be.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

__all__ = ["Descent", "Parts", "Turn", "one_layer", "one_layer_exact", "parts_of", "turn_of", "two_layers"]

Square = Float[ndarray, "concept concept"]
PerConcept = Float[ndarray, " concept"]
PerStep = Float[ndarray, " step"]


class Descent(NamedTuple):
    """A run."""

    loss: PerStep
    """Half the squared error at the test point, before each step and after the last."""
    train: PerStep
    """Half the mean squared error on the training clusters."""
    weights: Float[ndarray, "kept concept concept"]
    """W at the kept steps."""
    kept: tuple[int, ...]
    """Which steps those are."""


class Parts(NamedTuple):
    """What moves W of two mirrored layers: dW/dt = growth - suppression - noise."""

    growth: Square
    """Each entry grows with the strengths of its two concepts."""
    suppression: Square
    """What has been learned of the two concepts holds it down."""
    noise: Square
    """What goes through third concepts."""


class Turn(NamedTuple):
    """First minimum of a loss and the maximum after it."""

    low: float
    """Loss at the first minimum."""
    high: float
    """Loss at the maximum that follows it, or the same where none does."""
    at_low: int
    """Step of the minimum."""
    at_high: int
    """Step of the maximum."""

    @property
    def rebound(self) -> float:
        """How many times the minimum the maximum is; 1 = the loss never rose."""
        return self.high / self.low


def _descend(start: Square, mu: PerConcept, a: PerConcept, steps: int, eta: float, *, mirrored: bool) -> Descent:
    inner, one = start.copy(), np.eye(len(mu))
    loss, train = np.empty(steps + 1), np.empty(steps + 1)
    kept = tuple(sorted({round(steps * i / 200) for i in range(201)}))
    wanted, weights = set(kept), []
    for step in range(steps + 1):
        w = inner @ inner.T if mirrored else inner
        off = w - one
        miss = off @ mu
        loss[step] = 0.5 * miss @ miss
        train[step] = 0.5 * float((off * off * a).sum())
        if step in wanted:
            weights.append(w.copy())
        pull = off * a
        inner = inner - eta * (0.5 * (pull + pull.T) @ inner if mirrored else pull)
    return Descent(loss, train, np.stack(weights), kept)


def one_layer(
    mu: PerConcept, a: PerConcept, draw: np.random.Generator, *, steps: int = 6000, eta: float = 0.005
) -> Descent:
    """One layer from weights in [0, .01]."""
    return _descend(draw.uniform(0, 0.01, (len(mu), len(mu))), mu, a, steps, eta, mirrored=False)


def two_layers(
    mu: PerConcept, a: PerConcept, draw: np.random.Generator, *, steps: int = 12_000, eta: float = 0.005
) -> Descent:
    """Two mirrored layers from weights in [0, .1]."""
    return _descend(draw.uniform(0, 0.1, (len(mu), len(mu))), mu, a, steps, eta, mirrored=True)


def one_layer_exact(start: Square, z: PerConcept, left: PerConcept) -> PerConcept:
    """Output of one layer at input z: (1 - left_k) z_k + sum_i left_i w_ki(0) z_i.

    `left`: what of each concept is not learned yet: e^(-a t) under gradient flow for a time t, (1 - eta a)^n after n steps.
    """
    return (1 - left) * z + start @ (left * z)


def parts_of(w: Square, a: PerConcept) -> Parts:
    """The three parts of dW/dt under gradient flow (the paper's decomposition), for symmetric W."""
    pair = a[:, None] + a
    d = np.diag(w)
    lean = d[:, None] * (3 * a[:, None] + a) + (1 - np.eye(len(a))) * (d * (3 * a + a[:, None]))
    # All paths over a third concept are all paths less those over the two themselves.
    through = np.einsum("ik,kj,ijk->ij", w, w, pair[:, :, None] + 2 * a)
    own = np.einsum("ii,ij,ij->ij", w, w, pair + 2 * a[:, None]) + np.einsum("ij,jj,ij->ij", w, w, pair + 2 * a)
    twice = np.diag(d * d * 4 * a)
    return Parts(w * pair, 0.5 * w * lean, 0.5 * (through - own + twice))


def turn_of(loss: PerStep) -> Turn:
    """The first minimum of a loss and the maximum after it.

    >>> turn_of(np.array([4.0, 2.0, 3.0, 1.0])).rebound
    1.5
    """
    change = np.diff(loss)
    up = np.flatnonzero(change > 0)
    if not len(up):
        last = len(loss) - 1
        return Turn(float(loss[last]), float(loss[last]), last, last)
    low = int(up[0])
    down = np.flatnonzero(change[low:] < 0)
    high = low + int(down[0]) if len(down) else len(loss) - 1
    return Turn(float(loss[low]), float(loss[high]), low, high)
