"""Linear forecasts, fitted from sums alone: standardised ridge regressions, their strength, and what they thought unlikely."""

from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.axes import PerToken
from perimetry.sae.base import Codes
from perimetry.sae.steps.active import Active, flat_nonzero
from perimetry.sae.steps.products import sampled

__all__ = ["Regression", "Standard", "choose_ridge", "fit_ridge", "share_below", "solve_ridge", "standardise"]

RIDGES: Final = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 3))
"""Strengths that are tried, on features of unit variance: 0.0001 to 10, two to a decade."""
_FLAT: Final = 1e-10


class Standard(NamedTuple):
    """Moments of a regression on standardised features, float64."""

    mean: Float[Tensor, " feature"]
    """Mean of each feature."""
    scale: Float[Tensor, " feature"]
    """Standard deviation of each feature."""
    square: Float[Tensor, "feature feature"]
    """Correlations of the features."""
    cross: Float[Tensor, "target feature"]
    """Covariances of the targets with the standardised features."""
    base: Float[Tensor, " target"]
    """Mean of each target."""


class Regression(NamedTuple):
    """A linear forecast, float64."""

    weights: Float[Tensor, "target feature_and_1"]
    """Weights of the standardised features, and last the mean of the target."""
    mean: Float[Tensor, " feature"]
    """What is taken off a feature."""
    scale: Float[Tensor, " feature"]
    """What it is divided by then."""


def solve_ridge(
    square: Float[Tensor, "feature feature"], cross: Float[Tensor, "target feature"], ridge: float
) -> Float[Tensor, "target feature"]:
    """Weights W with W (square + ridge I) = cross."""
    shifted = square + ridge * torch.eye(square.shape[0], dtype=square.dtype)
    return torch.cholesky_solve(cross.T, torch.linalg.cholesky(shifted)).T.contiguous()


def standardise(
    gram: Float[Tensor, "feature_and_1 feature_and_1"], cross: Float[Tensor, "target feature_and_1"]
) -> Standard:
    """Moments from raw sums: of g g' and of y g', with g the features and a 1 at the end, over all tokens."""
    tokens = gram[-1, -1]
    mean, base = gram[-1, :-1] / tokens, cross[:, -1] / tokens
    covariance = gram[:-1, :-1] / tokens - mean[:, None] * mean
    # The variance of a constant feature is what rounding leaves of its mean square.
    floor = _FLAT * (gram.diagonal()[:-1] / tokens).mean().clamp_min(1e-12)
    scale = covariance.diagonal().clamp_min(floor).sqrt()
    together = (cross[:, :-1] / tokens - base[:, None] * mean) / scale
    return Standard(mean, scale, covariance / (scale[:, None] * scale), together, base)


def fit_ridge(moments: Standard, ridge: float) -> Regression:
    """The forecast of one strength; the mean of a target is not shrunk."""
    weights = solve_ridge(moments.square, moments.cross, ridge)
    return Regression(torch.cat([weights, moments.base[:, None]], 1), moments.mean, moments.scale)


def choose_ridge(
    moments: Standard,
    gram: Float[Tensor, "feature_and_1 feature_and_1"],
    cross: Float[Tensor, "target feature_and_1"],
    units: Float[Tensor, " target"] | None = None,
) -> float:
    """The strength of least squared error on other tokens, given by their raw sums; targets are measured in `units`.

    All strengths share one decomposition: with V the eigenvectors of the correlations, s their eigenvalues and C the
    covariances, both sides of the error need only C V, and d = 1 / (s + ridge).
    """
    values, vectors = torch.linalg.eigh(moments.square)
    move = torch.cat([vectors / moments.scale[:, None], -(moments.mean / moments.scale)[None] @ vectors])
    seen = (cross - moments.base[:, None] * gram[-1]) @ move
    known = moments.cross @ vectors
    if units is not None:
        seen, known = seen / units[:, None], known / units[:, None]
    gain, cost = (known * seen).sum(0), (move.T @ gram @ move) * (known.T @ known)

    def error(ridge: float) -> float:
        shrink = 1 / (values.clamp_min(0) + ridge)
        return float(shrink @ cost @ shrink - 2 * shrink @ gain)

    return min(RIDGES, key=error)


def share_below(
    features: Float[Tensor, "token feature"], weights: Float[Tensor, "d_sae feature"], codes: Codes, limit: float
) -> PerToken:
    """Share of a token's active concepts whose forecast lies below `limit`; 0 where none is active."""
    tokens, slots = codes.indices.shape
    starts = torch.arange(tokens + 1, device=codes.indices.device) * slots
    values = codes.values.reshape(-1)
    # Only the products at active slots are formed, a tenth of the work of all.
    active = Active(starts, codes.indices.reshape(-1), values, codes.width).keep(values != 0)
    unlikely = flat_nonzero(sampled(active, features, weights) < limit)
    return torch.searchsorted(unlikely, active.offsets).diff().float() / active.offsets.diff().clamp_min(1)
