"""Mahalanobis distance from the clean activations, plain and relative to the token."""

from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import Acts, ModelBias, PerToken
from perimetry.shift.base import Evidence
from perimetry.shift.features import BUCKETS
from perimetry.shift.profile import Profile
from perimetry.shift.stateful import TensorDetector

__all__ = ["Mahalanobis", "RelativeMahalanobis", "whitener"]

_RIDGE: Final = 1e-6
_PRIOR: Final = 8.0


def whitener(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """W with W W' the inverse of the covariance, after a ridge of a millionth of its mean eigenvalue; float32."""
    size = covariance.shape[0]
    ridge = (_RIDGE * covariance.trace() / size).clamp_min(1e-12)
    values, vectors = torch.linalg.eigh(covariance + ridge * torch.eye(size, dtype=covariance.dtype))
    return (vectors * values.clamp_min(float(ridge)).rsqrt()).float().contiguous()


def _distance(centred: Acts, white: Float[Tensor, "d_model d_model"]) -> PerToken:
    return (centred @ white).square().sum(1)


@final
@dataclass(frozen=True, eq=False)
class Mahalanobis(TensorDetector):
    """Squared Mahalanobis distance from the clean mean under the full clean covariance (Lee et al. 2018, one class)."""

    name: ClassVar[str] = "mahalanobis"
    needs_sae: ClassVar[bool] = False
    baseline: ClassVar[bool] = True
    mean: ModelBias
    white: Float[Tensor, "d_model d_model"]

    @classmethod
    def fit(cls, profile: Profile) -> "Mahalanobis":
        """Invert the covariance. Errors: `TooFewSamples` with no more tokens than dimensions."""
        profile.require(profile.d_model + 1, "the Mahalanobis distance")
        return cls(profile.mean().float(), whitener(profile.covariance()))

    def score(self, evidence: Evidence) -> PerToken:
        """Squared distance."""
        return _distance(evidence.acts.float() - self.mean, self.white)


@final
@dataclass(frozen=True, eq=False)
class RelativeMahalanobis(TensorDetector):
    """Mahalanobis distance from the mean of the token's own bucket, minus the plain one (after Ren et al. 2021).

    There the classes are labels, and the smallest class distance counts because the label is unknown. Text has no
    labels, but its tokens are known: the class is the token's bucket (a frequent token, or a band of rare ones). The
    first distance uses the pooled covariance around the bucket means; these are shrunk to the clean mean as if by eight
    tokens more.
    """

    name: ClassVar[str] = "relative_mahalanobis"
    needs_sae: ClassVar[bool] = False
    baseline: ClassVar[bool] = True
    mean: ModelBias
    white: Float[Tensor, "d_model d_model"]
    bucket_means: Float[Tensor, "bucket d_model"]
    bucket_white: Float[Tensor, "d_model d_model"]
    buckets: Int[Tensor, " vocab"]

    @classmethod
    def fit(cls, profile: Profile) -> "RelativeMahalanobis":
        """Invert both covariances. Errors: `TooFewSamples`."""
        profile.require(profile.d_model + BUCKETS, "the relative Mahalanobis distance")
        counts, sums, mean = profile.sums["bucket_tokens"].double(), profile.sums["bucket_acts"], profile.mean()
        means = (sums + _PRIOR * mean) / (counts + _PRIOR)[:, None]
        mixed = sums.T @ means
        within = profile.sums["outer"] - mixed - mixed.T + means.T @ (means * counts[:, None])
        return cls(
            mean.float(),
            whitener(profile.covariance()),
            means.float(),
            whitener(within / profile.tokens),
            profile.buckets,
        )

    def score(self, evidence: Evidence) -> PerToken:
        """Difference of the squared distances."""
        acts = evidence.acts.float()
        own = self.bucket_means[self.buckets[evidence.tokens]]
        return _distance(acts - own, self.bucket_white) - _distance(acts - self.mean, self.white)
