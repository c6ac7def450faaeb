"""Scores that count active concepts and weigh them by how rare they are on clean text."""

from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.axes import PerToken
from perimetry.shift.base import Evidence
from perimetry.shift.features import VALUE_BINS
from perimetry.shift.profile import Profile
from perimetry.shift.sketch import histogram_quantile
from perimetry.shift.stateful import PlainDetector, TensorDetector, sum_active

__all__ = ["L0", "Bernoulli", "FallaciousF1", "Novelty", "Surprise", "rare_below", "surprise_weights"]

_TAIL: Final = 0.999


def surprise_weights(profile: Profile) -> Float[Tensor, " d_sae"]:
    """log((1 - p) / p) of each latent, p its smoothed clean firing rate; float32, in nats."""
    rates = profile.firing_rates()
    return ((1 - rates) / rates).log().float()


def rare_below(profile: Profile) -> float:
    """The rate under which a concept counts as rare: a tenth of the mean smoothed firing rate of the dictionary."""
    return float(profile.firing_rates().mean()) / 10


@final
@dataclass(frozen=True, eq=False)
class L0(PlainDetector):
    """Active concepts per token. Higher = further, where the architecture's count is free to rise."""

    name: ClassVar[str] = "l0"

    def score(self, evidence: Evidence) -> PerToken:
        """Count."""
        return evidence.codes.count().float()


@final
@dataclass(frozen=True, eq=False)
class Surprise(TensorDetector):
    """Sum over the active concepts of log((1 - p) / p), in nats: many concepts, and rare ones. Higher = further."""

    name: ClassVar[str] = "surprise"
    weights: Float[Tensor, " d_sae"]

    @classmethod
    def fit(cls, profile: Profile) -> "Surprise":
        """Learn the firing rates."""
        profile.require(1, "the surprise")
        return cls(surprise_weights(profile))

    def score(self, evidence: Evidence) -> PerToken:
        """Sum."""
        return sum_active(evidence.codes, self.weights)


@final
@dataclass(frozen=True, eq=False)
class Bernoulli(TensorDetector):
    """Negative log-likelihood of the active set under independent firing, in nats.

    -sum_f [a_f log p_f + (1 - a_f) log(1 - p_f)], which is the surprise plus the constant -sum_f log(1 - p_f): the two
    rank alike, and the likelihood gives the scale.
    """

    name: ClassVar[str] = "bernoulli"
    weights: Float[Tensor, " d_sae"]
    silence: Float[Tensor, ""]

    @classmethod
    def fit(cls, profile: Profile) -> "Bernoulli":
        """Learn the firing rates."""
        profile.require(1, "the Bernoulli likelihood")
        return cls(surprise_weights(profile), -(1 - profile.firing_rates()).log().sum().float())

    def score(self, evidence: Evidence) -> PerToken:
        """Negative log-likelihood."""
        return sum_active(evidence.codes, self.weights) + self.silence


@final
@dataclass(frozen=True, eq=False)
class FallaciousF1(TensorDetector):
    """False concepts by the marginal definition: active, although rarer than a tenth of the mean rate on clean text."""

    name: ClassVar[str] = "fallacious_f1"
    rare: Float[Tensor, " d_sae"]

    @classmethod
    def fit(cls, profile: Profile) -> "FallaciousF1":
        """Mark the rare concepts."""
        profile.require(1, "the false concepts")
        return cls((profile.firing_rates() < rare_below(profile)).float())

    def false_slots(self, evidence: Evidence, rows: Int[Tensor, " row"]) -> Bool[Tensor, "row k"]:
        """Which code slots of some tokens hold a false concept."""
        codes = evidence.codes.select(rows)
        return (codes.values != 0) & (self.rare[codes.indices] != 0)

    def score(self, evidence: Evidence) -> PerToken:
        """Count the rare ones among the active."""
        return sum_active(evidence.codes, self.rare)


@final
@dataclass(frozen=True, eq=False)
class Novelty(TensorDetector):
    """Concepts active above their own 99.9 % quantile over all clean tokens.

    The tokens on which a concept is silent count as zeros, so that a concept which fires on less than one clean token
    in a thousand is novel whenever it fires.
    """

    name: ClassVar[str] = "novelty"
    limit: Float[Tensor, " d_sae"]

    @classmethod
    def fit(cls, profile: Profile) -> "Novelty":
        """Learn the quantiles, to the 19 % width of a histogram bin."""
        profile.require(1, "the novelty")
        silent = profile.tokens - profile.sums["fired"]
        return cls(histogram_quantile(profile.sums["values"], silent, _TAIL, VALUE_BINS))

    def score(self, evidence: Evidence) -> PerToken:
        """Count."""
        values = evidence.codes.values
        return ((values != 0) & (values > self.limit[evidence.codes.indices])).sum(1).to(torch.float32)
