"""Baselines from the next-token distribution: they need the whole forward pass."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.axes import PerPrompt, PerToken
from perimetry.errors import TooFewSamples
from perimetry.shift.base import Evidence, Level
from perimetry.shift.pooling import Reference, pool
from perimetry.shift.profile import Profile
from perimetry.shift.stateful import PlainDetector, TensorDetector, logits_of

__all__ = ["NLL", "Entropy", "LogitEnergy", "NLLCusum", "NLLWindow"]


@final
@dataclass(frozen=True, eq=False)
class NLL(PlainDetector):
    """Negative log-likelihood of each token, in nats; its mean is the log-perplexity. Higher = less expected."""

    name: ClassVar[str] = "nll"
    needs_logits: ClassVar[bool] = True
    needs_sae: ClassVar[bool] = False
    baseline: ClassVar[bool] = True

    def score(self, evidence: Evidence) -> PerToken:
        """As the model gave it."""
        return logits_of(evidence, self.name).nll.float()


@final
@dataclass(frozen=True, eq=False)
class NLLWindow(PlainDetector):
    """The largest mean negative log-likelihood over eight tokens in a row (Jain et al. 2023, windowed perplexity)."""

    name: ClassVar[str] = "nll_window"
    level: ClassVar[Level] = "prompt"
    needs_logits: ClassVar[bool] = True
    needs_sae: ClassVar[bool] = False
    baseline: ClassVar[bool] = True

    def score(self, evidence: Evidence) -> PerPrompt:
        """Maximum of the rolling mean."""
        return pool(logits_of(evidence, self.name).nll.float(), evidence.prompt, evidence.n_prompts, "max")


@final
@dataclass(frozen=True, eq=False)
class NLLCusum(TensorDetector):
    """One-sided CUSUM of the negative log-likelihood, standardised by its clean mean and deviation (see `pooling`)."""

    name: ClassVar[str] = "nll_cusum"
    level: ClassVar[Level] = "prompt"
    needs_logits: ClassVar[bool] = True
    needs_sae: ClassVar[bool] = False
    baseline: ClassVar[bool] = True
    moments: Float[Tensor, " three"]

    @classmethod
    def fit(cls, profile: Profile) -> "NLLCusum":
        """Learn mean and deviation. Errors: `TooFewSamples` when the profile has seen no next-token statistics."""
        moments = profile.sums["nll"]
        if float(moments[0]) < 2:
            raise TooFewSamples(
                f"nll_cusum needs clean tokens with next-token statistics and the profile has seen {int(moments[0])}; "
                "run the forward pass to the end for the profile, or leave this detector out"
            )
        return cls(moments.clone())

    def score(self, evidence: Evidence) -> PerPrompt:
        """CUSUM statistic of each prompt."""
        nll = logits_of(evidence, self.name).nll.float()
        reference = Reference(*self.moments.tolist())
        return pool(nll, evidence.prompt, evidence.n_prompts, "cusum", reference)


@final
@dataclass(frozen=True, eq=False)
class Entropy(PlainDetector):
    """Entropy of the next-token distribution, in nats. Higher = less sure."""

    name: ClassVar[str] = "entropy"
    needs_logits: ClassVar[bool] = True
    needs_sae: ClassVar[bool] = False
    baseline: ClassVar[bool] = True

    def score(self, evidence: Evidence) -> PerToken:
        """As the model gave it."""
        return logits_of(evidence, self.name).entropy.float()


@final
@dataclass(frozen=True, eq=False)
class LogitEnergy(PlainDetector):
    """Minus the log-sum-exp of the logits (Liu et al. 2020). Higher = less sure."""

    name: ClassVar[str] = "logit_energy"
    needs_logits: ClassVar[bool] = True
    needs_sae: ClassVar[bool] = False
    baseline: ClassVar[bool] = True

    def score(self, evidence: Evidence) -> PerToken:
        """As the model gave it."""
        return logits_of(evidence, self.name).energy.to(torch.float32)
