"""Baselines of reconstruction: how much of a vector the dictionary, or a few principal directions, cannot write."""

from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.axes import ModelBias, PerToken
from perimetry.shift.base import Evidence
from perimetry.shift.profile import Profile
from perimetry.shift.stateful import PlainDetector, TensorDetector

__all__ = ["PCAResidual", "ReconError", "ReconRelative"]

_KEPT: Final = 0.9


@final
@dataclass(frozen=True, eq=False)
class ReconError(PlainDetector):
    """|x - x_hat|^2 of the SAE. Higher = worse written."""

    name: ClassVar[str] = "recon_error"
    baseline: ClassVar[bool] = True

    def score(self, evidence: Evidence) -> PerToken:
        """Squared error."""
        return (evidence.acts - evidence.reconstruction).float().square().sum(1)


@final
@dataclass(frozen=True, eq=False)
class ReconRelative(TensorDetector):
    """|x - x_hat|^2 / |x - mean|^2: the share of a vector's distance from the clean mean that the SAE misses."""

    name: ClassVar[str] = "recon_relative"
    baseline: ClassVar[bool] = True
    mean: ModelBias
    floor: Float[Tensor, ""]

    @classmethod
    def fit(cls, profile: Profile) -> "ReconRelative":
        """Learn the mean; the floor, a millionth of the clean variance, keeps the quotient finite at the mean."""
        profile.require(1, "the relative error")
        return cls(profile.mean().float(), (1e-6 * profile.covariance().trace()).clamp_min(1e-12).float())

    def score(self, evidence: Evidence) -> PerToken:
        """Quotient."""
        error = (evidence.acts - evidence.reconstruction).float().square().sum(1)
        return error / (evidence.acts.float() - self.mean).square().sum(1).clamp_min(float(self.floor))


@final
@dataclass(frozen=True, eq=False)
class PCAResidual(TensorDetector):
    """|(I - V V') (x - mean)|^2, V the leading principal directions that hold 90 % of the clean variance.

    Jackson and Mudholkar 1979 (Q statistic).
    """

    name: ClassVar[str] = "pca_residual"
    needs_sae: ClassVar[bool] = False
    baseline: ClassVar[bool] = True
    mean: ModelBias
    directions: Float[Tensor, "d_model kept"]

    @classmethod
    def fit(cls, profile: Profile) -> "PCAResidual":
        """Take the principal directions. Errors: `TooFewSamples`."""
        profile.require(2, "the principal directions")
        size, vectors = torch.linalg.eigh(profile.covariance())
        share = size.flip(0).clamp_min(0).cumsum(0) / size.clamp_min(0).sum().clamp_min(1e-300)
        kept = min(int((share < _KEPT).sum()) + 1, size.numel() - 1)
        return cls(profile.mean().float(), vectors.flip(1)[:, :kept].contiguous().float())

    def score(self, evidence: Evidence) -> PerToken:
        """Squared residual."""
        centred = evidence.acts.float() - self.mean
        return (centred - centred @ self.directions @ self.directions.T).square().sum(1)
