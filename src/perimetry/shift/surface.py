"""Baselines that a sceptic tries first: the text's surface and the size of its vectors, no concepts."""

from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from perimetry.axes import PerPrompt, PerToken
from perimetry.errors import TooFewSamples
from perimetry.shift.base import Evidence, Level
from perimetry.shift.profile import Profile
from perimetry.shift.stateful import PlainDetector, TensorDetector

__all__ = ["Length", "Norm", "TokensPerWord", "UnigramSurprisal"]


@final
@dataclass(frozen=True, eq=False)
class TokensPerWord(PlainDetector):
    """Scorable tokens for each white-space separated word. Higher = more broken words."""

    name: ClassVar[str] = "tokens_per_word"
    level: ClassVar[Level] = "prompt"
    needs_sae: ClassVar[bool] = False
    baseline: ClassVar[bool] = True

    def score(self, evidence: Evidence) -> PerPrompt:
        """Ratio."""
        return (evidence.lengths() / evidence.words).float()


@final
@dataclass(frozen=True, eq=False)
class Length(PlainDetector):
    """Scorable tokens of the prompt: says how much of a result is length alone."""

    name: ClassVar[str] = "length"
    level: ClassVar[Level] = "prompt"
    needs_sae: ClassVar[bool] = False
    baseline: ClassVar[bool] = True

    def score(self, evidence: Evidence) -> PerPrompt:
        """Count."""
        return evidence.lengths().float()


@final
@dataclass(frozen=True, eq=False)
class Norm(PlainDetector):
    """Euclidean norm of the residual-stream vector. Higher is called further; a shift may as well lower it."""

    name: ClassVar[str] = "norm"
    needs_sae: ClassVar[bool] = False
    baseline: ClassVar[bool] = True

    def score(self, evidence: Evidence) -> PerToken:
        """Norm."""
        return evidence.acts.float().norm(dim=1)


@final
@dataclass(frozen=True, eq=False)
class UnigramSurprisal(TensorDetector):
    """-log((n_v + 1) / (N + V)) of each token, in nats: how rare it is, whatever its context."""

    name: ClassVar[str] = "unigram_surprisal"
    needs_sae: ClassVar[bool] = False
    baseline: ClassVar[bool] = True
    surprisal: Float[Tensor, " vocab"]

    @classmethod
    def fit(cls, profile: Profile) -> "UnigramSurprisal":
        """Learn the frequencies. Errors: `TooFewSamples` when no token was counted."""
        counts = profile.unigrams().double()
        if not float(counts.sum()):
            raise TooFewSamples("unigram_surprisal needs token counts and the profile has none; give it clean text")
        return cls(-((counts + 1) / (counts.sum() + counts.shape[0])).log().float())

    def score(self, evidence: Evidence) -> PerToken:
        """Look up."""
        return self.surprisal[evidence.tokens]
