"""What a detector promises, and the evidence that it reads.

A detector is fitted on a `Profile` of clean text alone and gives a number per token or per prompt: higher means
further from the fit data.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import Acts, PerPrompt, PerToken
from perimetry.sae.base import Codes

if TYPE_CHECKING:
    from perimetry.shift.profile import Profile

__all__ = ["AbstractDetector", "Evidence", "Level", "LogitStats", "concatenate"]

Level = Literal["token", "prompt"]
D = TypeVar("D", bound="AbstractDetector")


class LogitStats(NamedTuple):
    """What the next-token distribution says of each scorable token. All in nats."""

    nll: PerToken
    """Negative log-likelihood of the token given what precedes it."""
    entropy: PerToken
    """Entropy of the distribution that the token was drawn from."""
    energy: PerToken
    """Minus the log-sum-exp of the logits that the token was drawn from (logit energy; higher = less sure)."""


class Evidence(NamedTuple):
    """What one forward pass says of some prompts: flat over the tokens that the policy lets count, in prompt order."""

    acts: Acts
    """Raw residual-stream vectors, float32."""
    codes: Codes
    """Active concepts."""
    reconstruction: Acts
    """The SAE's reconstruction, in the units of `acts`."""
    tokens: Int[Tensor, " token"]
    """Vocabulary ids."""
    positions: Int[Tensor, " token"]
    """Position in the prompt, counted over real tokens (BOS is 0 where the policy prepends one)."""
    prompt: Int[Tensor, " token"]
    """Row of the prompt that the token belongs to; non-decreasing, every row occurs."""
    words: Float[Tensor, " prompt"]
    """White-space separated words of the prompt, at least 1."""
    logits: LogitStats | None
    """Next-token statistics, or None where the forward pass stopped at the tap."""
    foresight: Acts | None
    """The model's last hidden state, after the final norm, at the token before (zeros at position 0): all that the model
    foresaw of the token. None where the forward pass stopped at the tap."""
    pooled: Codes | None = None
    """The mean code of each prompt (`features.pooled_codes`) where it was made already, since several detectors read it."""

    @property
    def n_prompts(self) -> int:
        """Number of prompts."""
        return self.words.shape[0]

    def lengths(self) -> PerPrompt:
        """Scorable tokens of each prompt.

        With `prompt = [0, 0, 1]` the lengths are `[2, 1]`.
        """
        return torch.bincount(self.prompt, minlength=self.n_prompts).to(self.acts.dtype)


def concatenate(parts: list[Evidence]) -> Evidence:
    """One evidence of several, prompts in order; code slots are padded to the widest part."""
    slots = max(p.codes.indices.shape[1] for p in parts)

    def padded(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, (0, slots - x.shape[1]))

    offsets = [0]
    for part in parts:
        offsets.append(offsets[-1] + part.n_prompts)
    stats = [p.logits for p in parts if p.logits is not None]
    logits = (
        LogitStats(*(torch.cat(column) for column in zip(*stats, strict=True))) if len(stats) == len(parts) else None
    )
    ahead = [p.foresight for p in parts if p.foresight is not None]
    return Evidence(
        acts=torch.cat([p.acts for p in parts]),
        codes=Codes(
            torch.cat([padded(p.codes.indices) for p in parts]),
            torch.cat([padded(p.codes.values) for p in parts]),
            parts[0].codes.width,
        ),
        reconstruction=torch.cat([p.reconstruction for p in parts]),
        tokens=torch.cat([p.tokens for p in parts]),
        positions=torch.cat([p.positions for p in parts]),
        prompt=torch.cat([p.prompt + offset for p, offset in zip(parts, offsets, strict=False)]),
        words=torch.cat([p.words for p in parts]),
        logits=logits,
        foresight=torch.cat(ahead) if len(ahead) == len(parts) else None,
    )


class AbstractDetector(ABC):
    """One way to say how far a token, or a prompt, lies from clean text. Higher = further."""

    name: ClassVar[str]
    """Name in `DETECTORS` and in every `scores` table."""
    level: ClassVar[Level] = "token"
    """`token`: scores are per token and are pooled afterwards; `prompt`: one number a prompt, never pooled."""
    needs_logits: ClassVar[bool] = False
    """True where next-token statistics are needed (`Evidence.logits`)."""
    needs_foresight: ClassVar[bool] = False
    """True where the forward pass must run to the last hidden state (`Evidence.foresight`), not to the vocabulary."""
    needs_sae: ClassVar[bool] = True
    """False where the score depends on the activations, tokens or logits alone, so that several SAEs share it."""
    reads_pooled: ClassVar[bool] = False
    """True where the mean codes of prompts are read, which are then made once for all (`Evidence.pooled`)."""
    baseline: ClassVar[bool] = False
    """True where no concept of the SAE is read: what a sceptic would try first."""

    @classmethod
    @abstractmethod
    def fit(cls: type[D], profile: "Profile") -> D:
        """Learn what is normal from a profile of clean text. Errors: `TooFewSamples`."""

    @abstractmethod
    def score(self, evidence: Evidence) -> Tensor:
        """Per token (`level == "token"`) or per prompt; float32, finite."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What `from_state` needs to give the same scores; goes into the meter artifact."""

    @classmethod
    @abstractmethod
    def from_state(cls: type[D], state: dict[str, Tensor]) -> D:
        """The detector that `state` was taken from."""
