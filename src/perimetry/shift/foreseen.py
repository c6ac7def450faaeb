"""Scores of surprise beyond words: what the model's last hidden state did not foretell of the next token's inner state."""

from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.axes import Acts, ModelBias, PerToken
from perimetry.sae.base import Codes
from perimetry.shift.base import Evidence
from perimetry.shift.features import ahead_rows
from perimetry.shift.forecast import Regression, choose_ridge, fit_ridge, share_below, standardise
from perimetry.shift.mahalanobis import whitener
from perimetry.shift.profile import Profile
from perimetry.shift.stateful import TensorDetector, by_rows, foresight_of

__all__ = ["ForecastError", "Unforeseen"]

_TIMES: Final = 3.0
_HALF_MAX: Final = 6e4


def _features(hidden: Acts, mean: ModelBias, scale: ModelBias) -> Float[Tensor, "token feature"]:
    return torch.cat([(hidden.float() - mean) / scale, torch.ones(hidden.shape[0], 1)], 1)


@final
@dataclass(frozen=True, eq=False)
class Unforeseen(TensorDetector):
    """Share of a token's concepts that the model did not foresee. In [0, 1]; higher = less foreseen.

    Ridge regression on clean text predicts from h, the model's last hidden state (after the final norm) at the token
    before, which concepts are active: features standardised each by its own mean and deviation, the strength of least
    squared error on clean prompts kept aside. An active concept counts where its forecast is below three times its
    clean rate p = (n_f + 1) / (n + 2), over the clean tokens that the fit saw. A token before which the model has read
    less than two tokens has the mean score of the clean tokens kept aside, one without an active concept 0.
    """

    name: ClassVar[str] = "unforeseen"
    needs_foresight: ClassVar[bool] = True
    weights: Float[Tensor, "d_sae feature"]
    """In units of three times the rate, so that 1 is the limit, and half precision holds rare concepts too."""
    mean: ModelBias
    scale: ModelBias
    usual: Float[Tensor, ""]

    @classmethod
    def fit(cls, profile: Profile) -> "Unforeseen":
        """Solve the normal equations, twice. Errors: `TooFewSamples` with no clean pass that ran to the end."""
        total, held = profile.foresight.sums, profile.foresight.held_out(cls.name)
        known = standardise(held.known.gram, held.known.concepts)
        ridge = choose_ridge(known, held.sums.gram, held.sums.concepts)
        limits = _TIMES * (total.concepts[:, -1] + 1) / (total.gram[-1, -1] + 2)
        trial = cls._of(fit_ridge(known, ridge), limits, torch.tensor(0.0))
        usual = trial.unlikely(held.hidden, held.codes).mean()
        return cls._of(fit_ridge(standardise(total.gram, total.concepts), ridge), limits, usual)

    @classmethod
    def _of(cls, found: Regression, limits: Float[Tensor, " d_sae"], usual: Float[Tensor, ""]) -> "Unforeseen":
        weights = (found.weights / limits[:, None]).clamp(-_HALF_MAX, _HALF_MAX).half()
        return cls(weights, found.mean.float(), found.scale.float(), usual)

    def unlikely(self, hidden: Acts, codes: Codes) -> PerToken:
        """Share of the active concepts that the last hidden state before makes unlikely."""

        def part(rows: Tensor) -> PerToken:
            return share_below(_features(hidden[rows], self.mean, self.scale), self.weights, codes.select(rows), 1.0)

        return by_rows(part, hidden.shape[0])

    def score(self, evidence: Evidence) -> PerToken:
        """Share."""
        foresight, rows = foresight_of(evidence, self.name), ahead_rows(evidence)
        out = torch.where((evidence.codes.values != 0).any(1), self.usual, 0.0)
        return out.index_copy(0, rows, self.unlikely(foresight[rows], evidence.codes.select(rows)))


@final
@dataclass(frozen=True, eq=False)
class ForecastError(TensorDetector):
    """Squared Mahalanobis length of what the same forecast misses of the raw activation. Higher = less foreseen.

    The baseline of `unforeseen`: no dictionary, the target is x itself, each dimension measured in its deviation where
    the strength is chosen; the length is taken under the clean covariance of x minus its forecast.
    """

    name: ClassVar[str] = "forecast_error"
    needs_foresight: ClassVar[bool] = True
    needs_sae: ClassVar[bool] = False
    baseline: ClassVar[bool] = True
    weights: Float[Tensor, "d_model feature"]
    mean: ModelBias
    scale: ModelBias
    white: Float[Tensor, "d_model d_model"]
    usual: Float[Tensor, ""]

    @classmethod
    def fit(cls, profile: Profile) -> "ForecastError":
        """Solve the normal equations, twice. Errors: `TooFewSamples` with no clean pass that ran to the end."""
        total, held = profile.foresight.sums, profile.foresight.held_out(cls.name)
        known, everything = standardise(held.known.gram, held.known.acts), standardise(total.gram, total.acts)
        spread = total.outer / total.gram[-1, -1] - everything.base[:, None] * everything.base
        units = spread.diagonal().clamp_min(1e-12).sqrt()
        ridge = choose_ridge(known, held.sums.gram, held.sums.acts, units)
        trial, found = fit_ridge(known, ridge), fit_ridge(everything, ridge)
        weights = found.weights[:, :-1]
        mixed = weights @ everything.cross.T
        white = whitener(spread - mixed - mixed.T + weights @ everything.square @ weights.T)
        usual = cls._of(trial, white, torch.tensor(0.0)).missed(held.hidden, held.acts).mean()
        return cls._of(found, white, usual)

    @classmethod
    def _of(cls, found: Regression, white: Float[Tensor, "d d"], usual: Float[Tensor, ""]) -> "ForecastError":
        return cls(found.weights.float(), found.mean.float(), found.scale.float(), white, usual)

    def missed(self, hidden: Acts, acts: Acts) -> PerToken:
        """Squared length of the activations minus their forecast."""
        forecast = _features(hidden, self.mean, self.scale) @ self.weights.T
        return ((acts.float() - forecast) @ self.white).square().sum(1)

    def score(self, evidence: Evidence) -> PerToken:
        """Squared length."""
        foresight, rows = foresight_of(evidence, self.name), ahead_rows(evidence)
        out = self.usual.repeat(evidence.tokens.shape[0])
        return out.index_copy(0, rows, self.missed(foresight[rows], evidence.acts[rows]))
