"""The control of a dictionary that learned nothing."""

from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import Encoder, LatentBias, ModelBias, PerToken
from perimetry.runtime import generator
from perimetry.shift.base import Evidence
from perimetry.shift.concepts import surprise_weights
from perimetry.shift.knn import unit
from perimetry.shift.profile import Profile
from perimetry.shift.stateful import TensorDetector, by_rows

__all__ = ["RandomDictionary"]

_ROWS: Final = 4096
_LATENTS: Final = 256
_LEADING: Final = 64


def _ranked(x: Float[Tensor, "row column"], rank: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
    """The entry of each row that so many others exceed."""
    out = torch.empty(x.shape[0])
    # Ranking a few leading entries is several times cheaper than sorting the row.
    few = rank < min(_LEADING, x.shape[1])
    out[few] = x[few].topk(min(_LEADING, x.shape[1]), dim=1).values.gather(1, rank[few, None])[:, 0]
    out[~few] = x[~few].sort(1, descending=True).values.gather(1, rank[~few, None])[:, 0]
    return out


@final
@dataclass(frozen=True, eq=False)
class RandomDictionary(TensorDetector):
    """Control: the surprise under random unit directions that fire as often on clean text as the trained latents.

    Latent f is active where its random projection of the centred activation exceeds a threshold, the quantile that
    gives it the clean firing rate p_f (found on 4,096 clean tokens; rarer latents fire above the largest of these).
    """

    name: ClassVar[str] = "random_dictionary"
    baseline: ClassVar[bool] = True
    encoder: Encoder
    mean: ModelBias
    limit: LatentBias
    weights: Float[Tensor, " d_sae"]

    @classmethod
    def fit(cls, profile: Profile) -> "RandomDictionary":
        """Draw the directions by the profile's seed and set the thresholds. Errors: `TooFewSamples`."""
        profile.require(2, "the random dictionary")
        draw = torch.randn(profile.d_sae, profile.d_model, generator=generator(profile.seed))
        encoder = unit(draw).bfloat16()
        mean = profile.mean().float()
        clean = profile.sample.columns["acts"][:_ROWS].float() - mean
        above = (profile.firing_rates() * clean.shape[0]).round().long().clamp(0, clean.shape[0] - 1)
        limits = [
            _ranked(part.float() @ clean.T, rank)
            for part, rank in zip(encoder.split(_LATENTS), above.split(_LATENTS), strict=True)
        ]
        return cls(encoder, mean, torch.cat(limits), surprise_weights(profile))

    def score(self, evidence: Evidence) -> PerToken:
        """Surprise of the random active set."""
        encoder = self.encoder.float()

        def part(rows: Tensor) -> Tensor:
            projected = (evidence.acts[rows].float() - self.mean) @ encoder.T
            return (projected > self.limit).float() @ self.weights

        return by_rows(part, evidence.tokens.shape[0])
