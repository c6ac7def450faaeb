"""Probes for the first letter of a word: on activations, and on few latents of a dictionary that an L1 probe chose.

Codes stay sparse (CSR) throughout: a dense matrix has as many columns as a letter has main latents.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from scipy import sparse, special
from torch import Tensor

from perimetry.axes import LatentBias
from perimetry.sae.base import Codes

__all__ = ["Main", "Probe", "csr_of", "f1", "fit_probe", "l1_weights", "main_latents", "ranked_latents"]

STEPS: Final = 3000
TOLERANCE: Final = 1e-3
"""Largest violation of the optimality conditions, as a share of the L1 weight, at which the L1 probe is done."""
POWER_STEPS: Final = 30

Fires = Bool[Tensor, " word"]
Sparse = Any
"""A sparse array of scipy, whose stubs know no shapes."""


class Probe(NamedTuple):
    """A linear probe; it fires where its score is above 0."""

    weights: Float[Tensor, " feature"]
    """Float64."""
    bias: float
    """Added to the product."""

    def scores(self, x: Float[Tensor, "word feature"]) -> Float[Tensor, " word"]:
        """Score of each word, float64."""
        return x.double() @ self.weights + self.bias


class Main(NamedTuple):
    """The latents that stand for a letter."""

    latents: Int[Tensor, " main"]
    """The first few in order of their L1 weights, at least one."""
    f1: float
    """Of the logistic probe on them, on held-out words."""


def f1(fires: Fires, truth: Fires) -> float:
    """Harmonic mean of precision and recall, in [0, 1]; higher is better; 0 where nothing is found.

    >>> f1(torch.tensor([True, True, False]), torch.tensor([True, False, False])) == 2 / 3
    True
    """
    found, both = int(fires.sum() + truth.sum()), int((fires & truth).sum())
    return 2 * both / found if found else 0.0


def fit_probe(x: Float[Tensor, "word feature"], truth: Fires, l2: float) -> Probe:
    """Logistic probe with both classes weighing the same, and `l2` / 2 times the squared norm beside the mean loss."""
    from sklearn.linear_model import LogisticRegression  # late: takes a second

    model: Any = LogisticRegression(C=1 / (l2 * len(truth)), class_weight="balanced", max_iter=2000, tol=1e-6)
    model.fit(x.double().numpy(), truth.numpy())
    return Probe(torch.from_numpy(model.coef_[0].astype(np.float64)), float(model.intercept_[0]))


def csr_of(codes: Codes, factors: LatentBias) -> Sparse:
    """Codes times a factor a latent as a sparse matrix of words by latents, float64."""
    values = codes.values.double() * factors.double()[codes.indices]
    row, slot = values.nonzero(as_tuple=True)
    flat = (values[row, slot].numpy(), (row.numpy(), codes.indices[row, slot].numpy()))
    return sparse.csr_array(flat, shape=(values.shape[0], codes.width))


def _step_sizes(x: Sparse, weights: np.ndarray) -> np.ndarray:
    """One over a bound on the curvature of each letter's loss: Collatz and Wielandt's, which holds at every power step."""
    size: Sparse = abs(x)
    direction = np.ones((x.shape[1], weights.shape[1]))
    bound = np.full(weights.shape[1], np.inf)
    for _ in range(POWER_STEPS):
        image = size.T @ (weights * (size @ direction))
        bound = np.minimum(bound, (image / direction).max(0))
        direction = image / image.max(0)
        direction = np.maximum(direction, 1e-12)
    return 4 / bound


def l1_weights(x: Sparse, truth: Bool[Tensor, "word letter"], l1: float) -> Float64[np.ndarray, "latent letter"]:
    """Weights of logistic probes, one a letter, with `l1` times the sum of the sizes of the weights beside the mean loss.

    Both classes weigh the same; the bias is free. Every column of `x` must have an entry. By FISTA (Beck and Teboulle 2009) with
    restarts: without random choices, and without an order of the latents.
    """
    y = truth.numpy().astype(np.float64)
    weights = y / (2 * y.sum(0)) + (1 - y) / (2 * (1 - y).sum(0))
    full: Sparse = sparse.csr_array(sparse.hstack([x, np.ones((x.shape[0], 1))], format="csr"))
    across: Sparse = sparse.csr_array(full.T)
    step = _step_sizes(full, weights)
    cost = np.full((full.shape[1], 1), l1)
    cost[-1] = 0
    now = np.zeros((full.shape[1], y.shape[1]))
    ahead, momentum = now, np.ones(y.shape[1])
    for _ in range(STEPS):
        gradient = across @ (weights * (special.expit(full @ ahead) - y))
        moved = ahead - step * gradient
        new = np.sign(moved) * np.maximum(np.abs(moved) - step * cost, 0)
        # A proximal step that goes nowhere is the optimality condition itself.
        if np.abs((ahead - new) / step).max() <= TOLERANCE * l1:
            return new[:-1]
        restart = ((ahead - new) * (new - now)).sum(0) > 0
        grown = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        factor = np.where(restart, 0, (momentum - 1) / grown)
        momentum = np.where(restart, 1, grown)
        ahead, now = new + factor * (new - now), new
    return now[:-1]


def ranked_latents(x: Sparse, truth: Bool[Tensor, "word letter"], l1: float, most: int) -> list[Int[Tensor, " rank"]]:
    """The first `most` latents of each letter by signed L1 weight, highest first; those that fire at some word only.

    Where weights are equal (all that the penalty took to 0) the difference between the mean at the letter's words and at the
    others decides.
    """
    active = np.flatnonzero(np.bincount(x.indices, minlength=x.shape[1]))
    seen: Sparse = sparse.csr_array(x[:, active])
    weights = l1_weights(seen, truth, l1)
    y = truth.numpy().astype(np.float64)
    gaps = seen.T @ (y / y.sum(0) - (1 - y) / (1 - y).sum(0))
    orders = [np.lexsort((-gaps[:, i], -weights[:, i]))[:most] for i in range(y.shape[1])]
    return [torch.from_numpy(active[order].astype(np.int64)) for order in orders]


def _columns(x: Sparse, latents: Int[Tensor, " main"]) -> Float[Tensor, "word main"]:
    return torch.from_numpy(x[:, latents.numpy()].toarray())


def main_latents(
    codes: tuple[Sparse, Sparse],
    truth: tuple[Bool[Tensor, " train"], Bool[Tensor, " held"]],
    ranked: Int[Tensor, " rank"],
    rise: float,
    l2: float,
) -> Main:
    """As many of the `ranked` latents as it takes until one more raises F1 by no more than `rise`; at least one.

    `codes` and `truth` are of the words on which the probes are fitted, and of those on which F1 is taken.
    """
    best, taken = -1.0, 0
    for k in range(1, len(ranked) + 1):
        probe = fit_probe(_columns(codes[0], ranked[:k]), truth[0], l2)
        found = f1(probe.scores(_columns(codes[1], ranked[:k])) > 0, truth[1])
        if taken and found <= best + rise:
            break
        best, taken = found, k
    return Main(ranked[:taken], best)
