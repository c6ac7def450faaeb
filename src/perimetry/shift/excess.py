"""The active count above what position, token frequency and norm already explain."""

from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.axes import PerToken
from perimetry.shift.base import Evidence
from perimetry.shift.features import context_features
from perimetry.shift.profile import Profile
from perimetry.shift.stateful import TensorDetector

__all__ = ["L0Excess"]

_RIDGE: Final = 1e-9


@final
@dataclass(frozen=True, eq=False)
class L0Excess(TensorDetector):
    """|A_t| minus its least-squares expectation on clean text. Higher = further.

    Regressors: 1, log(1 + position) and its square, log norm and its square, log token frequency and its square.
    """

    name: ClassVar[str] = "l0_excess"
    weights: Float[Tensor, " feature"]
    frequency: Float[Tensor, "vocab two"]

    @classmethod
    def fit(cls, profile: Profile) -> "L0Excess":
        """Solve the normal equations; the sums by token id let the frequencies be known last.

        Errors: `TooFewSamples`.
        """
        profile.require(32, "the regression of l0_excess")
        sums, counts = profile.sums, profile.unigrams().double()
        log = ((counts + 1) / (counts.sum() + counts.shape[0])).log()
        frequency = torch.stack([log, log.square()], 1)
        seen = sums["unigrams"].double()
        mixed = frequency.T @ sums["excess_features"]
        square = frequency.T @ (frequency * seen[:, None])
        gram = torch.cat([torch.cat([sums["excess_gram"], mixed.T], 1), torch.cat([mixed, square], 1)])
        cross = torch.cat([sums["excess_cross"], frequency.T @ sums["excess_counts"]])
        # Scaled to a unit diagonal, so that one ridge suits features of any size, constant ones included.
        scale = gram.diagonal().clamp_min(1e-300).rsqrt()
        scaled = gram * scale[:, None] * scale + _RIDGE * torch.eye(scale.numel(), dtype=torch.float64)
        return cls(scale * torch.linalg.solve(scaled, scale * cross), frequency)

    def score(self, evidence: Evidence) -> PerToken:
        """Count minus expectation."""
        features = torch.cat(
            [context_features(evidence.acts, evidence.positions), self.frequency[evidence.tokens]], dim=1
        )
        return (evidence.codes.count().double() - features @ self.weights).float()
