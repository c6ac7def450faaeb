"""What can be said of masked entries without a model: the least nuclear norm, and knowing exactly what can be known."""

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.labs.matrix_completion.world import Masked, identifiable

__all__ = ["errors_of", "exact_floor", "least_nuclear"]

Entries = Float[Tensor, "matrix row column"]


def least_nuclear(given: Masked, *, rho: float = 5.0, iterations: int = 400) -> Entries:
    """The matrices of least nuclear norm that agree with what is shown, by ADMM: singular values fall by 1 / rho, shown entries are put back."""
    values, observed = given.values.double(), given.observed
    whole = torch.where(observed, values, 0.0)
    dual = torch.zeros_like(whole)
    for _ in range(iterations):
        away = whole - dual
        # Right singular vectors from the Gram matrix: half the time of a decomposition by singular values, and exact enough in float64.
        squares, v = torch.linalg.eigh(away.transpose(1, 2) @ away)
        s = squares.clamp_min(0).sqrt()
        kept = (s - 1 / rho).clamp_min(0) / s.clamp_min(1e-12)
        low = away @ (v * kept[:, None]) @ v.transpose(1, 2)
        whole = torch.where(observed, values, low + dual)
        dual = dual + low - whole
    return whole


def errors_of(found: Entries, given: Masked) -> tuple[float, float]:
    """Mean squared error of the masked entries, and of all."""
    squared = (found.double() - given.values.double()).square()
    hidden = ~given.observed
    return float(squared[hidden].mean()), float(squared.mean())


def exact_floor(given: Masked) -> tuple[float, float]:
    """Rank 1: share of the masked entries that nothing determines, and the masked error of who knows all others and says 0 there."""
    hidden = ~given.observed
    open_ = hidden & ~identifiable(given.observed)
    squared = torch.where(open_, given.values.double().square(), 0.0)
    return float(open_.sum() / hidden.sum()), float(squared.sum() / hidden.sum())
