"""Scores of recombination: familiar concepts in unfamiliar company, which counts of single concepts cannot see."""

from dataclasses import dataclass, replace
from typing import ClassVar, Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import Acts, ModelBias, PerPrompt, PerToken
from perimetry.errors import TooFewSamples
from perimetry.sae.base import Codes
from perimetry.shift.base import Evidence, Level
from perimetry.shift.features import (
    PAIRED_CONCEPTS,
    pair_keys,
    pooled_codes,
    step_rows,
    strongest_pooled,
)
from perimetry.shift.forecast import share_below, solve_ridge
from perimetry.shift.profile import Profile
from perimetry.shift.sketch import PairCounts
from perimetry.shift.stateful import TensorDetector, by_rows

__all__ = ["Coactivation", "Transition"]

_PRIOR: Final = 1.0
_RIDGE: Final = 1e-3
_IMPROBABLE: Final = 0.01


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
    reads_pooled: ClassVar[bool] = True
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
    """Share of a token's concepts that the two tokens before make improbable. In [0, 1]; higher = less expected.

    With x standardised by the clean mean of each dimension and one clean deviation for all, g_t = [x_{t-1}, x_{t-2}, 1]
    over the prompt's scorable tokens; ridge regression on clean text, P_t = g_t (G + 0.001 n I)^-1 C with G = sum g g'
    and C = sum g_t a_t', predicts which concepts are active at t. An active concept with P below 0.01 counts. A token
    without two predecessors has the mean score of 2,048 clean tokens, one without an active concept 0. After arXiv
    2605.11920, which follows concepts from layer to layer.
    """

    name: ClassVar[str] = "transition"
    weights: Float[Tensor, "d_sae feature"]
    """In half precision, which is what reading them costs."""
    mean: ModelBias
    scale: Float[Tensor, ""]
    usual: Float[Tensor, ""]

    @classmethod
    def fit(cls, profile: Profile) -> "Transition":
        """Solve the normal equations. Errors: `TooFewSamples` where no clean prompt has three scorable tokens."""
        profile.require(3, "the transitions of concepts")
        if not int(profile.sums["steps"]):
            raise TooFewSamples(
                "the transitions of concepts need clean prompts of three scorable tokens and all that the profile has "
                "seen are shorter; give longer ones"
            )
        mean = profile.mean()
        scale = (profile.covariance().trace() / mean.numel()).clamp_min(1e-12).sqrt()
        fitted = cls(_regression(profile, mean, scale).half(), mean.float(), scale.float(), torch.tensor(0.0))
        rows = profile.steps.columns
        indices = rows["indices"].long()
        codes = Codes(indices % profile.d_sae, (indices < profile.d_sae).float(), profile.d_sae)
        one, two = rows["before"].float().chunk(2, dim=1)
        return replace(fitted, usual=fitted.improbable(one, two, codes).mean())

    def improbable(self, one: Acts, two: Acts, codes: Codes) -> PerToken:
        """Share of the active concepts with a probability below 0.01, given the activations one and two tokens before."""
        before = [(x.float() - self.mean) / self.scale for x in (one, two)]
        features = torch.cat([*before, torch.ones(one.shape[0], 1)], 1)
        return share_below(features, self.weights, codes, _IMPROBABLE)

    def score(self, evidence: Evidence) -> PerToken:
        """Share."""
        steps = step_rows(evidence)

        def part(at: Tensor) -> PerToken:
            rows = steps[at]
            return self.improbable(evidence.acts[rows - 1], evidence.acts[rows - 2], evidence.codes.select(rows))

        out = torch.where((evidence.codes.values != 0).any(1), self.usual, 0.0)
        return out.index_copy(0, steps, by_rows(part, steps.numel()))


def _regression(
    profile: Profile, mean: Float[Tensor, " d_model"], scale: Float[Tensor, ""]
) -> Float[Tensor, "d_sae feature"]:
    """Ridge weights on standardised features, from sums of raw ones."""
    sums, size, steps = profile.sums, profile.d_model, int(profile.sums["steps"])
    # Every token but the edges precedes one step.
    square = sums["outer"] - sums["edge_outer"]
    total = (sums["acts"] - sums["edge_acts"]).view(-1)
    lag = sums["step_lag"]
    gram = torch.cat([torch.cat([square[0], lag], 1), torch.cat([lag.T, square[1]], 1)])
    shift = mean.repeat(2)
    centred = total - steps * shift
    gram = gram - shift[:, None] * total - total[:, None] * shift + steps * shift[:, None] * shift
    cross = sums["step_cross"]
    full = torch.zeros(2 * size + 1, 2 * size + 1, dtype=torch.float64)
    full[:-1, :-1] = gram / scale.square()
    full[-1, :-1] = full[:-1, -1] = centred / scale
    full[-1, -1] = steps
    wanted = torch.cat([(cross[:, :-1] - cross[:, -1:] * shift) / scale, cross[:, -1:]], 1)
    return solve_ridge(full, wanted, _RIDGE * steps)
