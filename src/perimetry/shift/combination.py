"""Scores of recombination: familiar concepts in unfamiliar company, which counts of single concepts cannot see."""

from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import PerPrompt, PerToken
from perimetry.shift.base import Evidence, Level
from perimetry.shift.features import (
    PAIRED_CONCEPTS,
    TRANSITION_CONCEPTS,
    pair_keys,
    pooled_codes,
    strongest_pooled,
    transition_keys,
)
from perimetry.shift.profile import Profile
from perimetry.shift.sketch import PairCounts
from perimetry.shift.stateful import TensorDetector

__all__ = ["Coactivation", "Transition"]

_PRIOR: Final = 1.0


def _lookup(keys: Tensor, counts: Tensor, wanted: Tensor) -> Tensor:
    """Counts of the wanted keys; 0 where a key was never seen."""
    if not keys.numel():
        return torch.zeros(wanted.shape, dtype=torch.float32)
    at = torch.searchsorted(keys, wanted).clamp_max(keys.numel() - 1)
    return torch.where(keys[at] == wanted, counts[at], 0).float()


def _pairs(table: PairCounts) -> tuple[Tensor, Tensor]:
    keys, counts = table.table()
    return keys, counts.clamp_max(2**31 - 1).int()


@final
@dataclass(frozen=True, eq=False)
class Coactivation(TensorDetector):
    """Mean surprise of the pairs among a prompt's 32 strongest concepts, in nats. Higher = stranger company.

    -log p(a, b), p the share of clean prompts with both among their strongest, backed off to independence:
    (n_ab + q_a q_b) / (N + 1), q_a = (n_a + 1) / (N + 2). A prompt with fewer than two concepts scores 0.
    """

    name: ClassVar[str] = "coactivation"
    level: ClassVar[Level] = "prompt"
    keys: Int[Tensor, " pair"]
    counts: Int[Tensor, " pair"]
    single: Float[Tensor, " d_sae"]
    prompts: Float[Tensor, ""]

    @classmethod
    def fit(cls, profile: Profile) -> "Coactivation":
        """Take the pair counts. Errors: `TooFewSamples`."""
        profile.require(1, "the pairs of concepts")
        single = (profile.sums["strongest"].double() + 1) / (profile.prompts + 2)
        return cls(*_pairs(profile.together), single.float(), torch.tensor(float(profile.prompts)))

    def score(self, evidence: Evidence) -> PerPrompt:
        """Mean over pairs."""
        top, held = strongest_pooled(pooled_codes(evidence), PAIRED_CONCEPTS)
        first, second, owner = pair_keys(top, held)
        seen = _lookup(self.keys, self.counts, first * self.single.shape[0] + second)
        share = (seen + _PRIOR * self.single[first] * self.single[second]) / (self.prompts + _PRIOR)
        total = torch.zeros(evidence.n_prompts, dtype=torch.float64).index_add_(0, owner, -share.double().log())
        return (total / torch.bincount(owner, minlength=evidence.n_prompts).clamp_min(1)).float()


@final
@dataclass(frozen=True, eq=False)
class Transition(TensorDetector):
    """Mean surprise of a token's four strongest concepts given those of the token before, in nats. Higher = stranger.

    -log P(b | a) over all pairs, P(b | a) = (n_ab + q_b) / (n_a + 1), q_b = (n_b + 1) / (n + d_sae) the share of b among
    all successors. A token without a predecessor (the first, or after an excluded one) has mean -log q_b; one without
    an active concept 0. After arXiv 2605.11920, which follows concepts from layer to layer.
    """

    name: ClassVar[str] = "transition"
    keys: Int[Tensor, " pair"]
    counts: Int[Tensor, " pair"]
    sources: Float[Tensor, " d_sae"]
    successors: Float[Tensor, " d_sae"]

    @classmethod
    def fit(cls, profile: Profile) -> "Transition":
        """Take the transition counts. Errors: `TooFewSamples`."""
        profile.require(2, "the transitions of concepts")
        keys, counts = _pairs(profile.following)
        width = profile.d_sae
        zero = torch.zeros(width, dtype=torch.float64)
        sources = zero.index_add(0, keys // width, counts.double())
        successors = zero.index_add(0, keys % width, counts.double())
        return cls(keys, counts, sources.float(), ((successors + 1) / (successors.sum() + width)).float())

    def score(self, evidence: Evidence) -> PerToken:
        """Mean over pairs."""
        tokens = evidence.tokens.shape[0]
        first, second, owner = transition_keys(evidence)
        seen = _lookup(self.keys, self.counts, first * self.sources.shape[0] + second)
        chance = (seen + _PRIOR * self.successors[second]) / (self.sources[first] + _PRIOR)
        total = torch.zeros(tokens, dtype=torch.float64).index_add_(0, owner, -chance.double().log())
        pairs = torch.bincount(owner, minlength=tokens)
        codes = evidence.codes
        values, slot = codes.values.topk(min(TRANSITION_CONCEPTS, codes.values.shape[1]), dim=1)
        alone = -self.successors[codes.indices.gather(1, slot)].double().log() * (values > 0)
        marginal = alone.sum(1) / (values > 0).sum(1).clamp_min(1)
        return torch.where(pairs > 0, total / pairs.clamp_min(1), marginal).float()
