"""False concepts by context: active here, although nothing like this token made them fire on clean text."""

from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.axes import ModelBias, PerToken
from perimetry.sae.base import Codes
from perimetry.sae.steps import native
from perimetry.shift.base import Evidence
from perimetry.shift.concepts import rare_below
from perimetry.shift.knn import nearest, unit
from perimetry.shift.profile import Profile
from perimetry.shift.stateful import TensorDetector, by_rows

__all__ = ["FallaciousF2"]

_NEIGHBOURS: Final = 16
_DIRECTIONS: Final = 64
_PRIOR: Final = 20.0
_ROWS: Final = 4096
"""Tokens at a time; the search rounds the sample anew for each."""


@final
@dataclass(frozen=True, eq=False)
class FallaciousF2(TensorDetector):
    """Active concepts that the context does not support. Higher = more false concepts.

    A concept counts when it is in none of the active sets of the 16 nearest clean tokens, or when its rate on clean
    tokens of the same bucket is below a tenth of the mean firing rate (the bucket's rate is shrunk to the concept's own
    by 20 tokens). Near means: by cosine of the centred activations in their 64 leading principal directions, which
    costs a tenth of the full search.
    """

    name: ClassVar[str] = "fallacious_f2"
    mean: ModelBias
    directions: Float[Tensor, "d_model kept"]
    sample: Float[Tensor, "row kept"]
    active: Int[Tensor, "row slot"]
    unsupported: Bool[Tensor, "bucket d_sae"]
    buckets: Int[Tensor, " vocab"]

    @classmethod
    def fit(cls, profile: Profile) -> "FallaciousF2":
        """Project the sample and tabulate the bucket rates. Errors: `TooFewSamples`."""
        profile.require(_NEIGHBOURS, "the clean contexts of fallacious_f2")
        mean = profile.mean().float()
        vectors = torch.linalg.eigh(profile.covariance()).eigenvectors.flip(1)
        directions = vectors[:, :_DIRECTIONS].contiguous().float()
        rates, seen = profile.firing_rates(), profile.sums["bucket_tokens"].double()
        within = (profile.sums["bucket_fired"] + _PRIOR * rates) / (seen + _PRIOR)[:, None]
        sample = unit((profile.sample.columns["acts"].float() - mean) @ directions)
        return cls(
            mean,
            directions,
            sample,
            profile.sample.columns["indices"],
            within < rare_below(profile),
            profile.buckets,
        )

    def neighbours(self, acts: Float[Tensor, "token d_model"]) -> Int[Tensor, "token k"]:
        """Rows of the sample nearest to each token."""
        near = unit((acts.float() - self.mean) @ self.directions)
        return nearest(near, self.sample, _NEIGHBOURS).indices

    def company(self, acts: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_sae"]:
        """Share of the nearest clean tokens on which each concept fires, in [0, 1]; give few tokens at a time."""
        rows = self.neighbours(acts)
        near = self.active[rows].flatten(1).long()
        # One place more than there are latents takes the padding.
        fired = torch.zeros(rows.shape[0], self.unsupported.shape[1] + 1)
        return fired.scatter_add_(1, near, torch.ones(near.shape))[:, :-1] / rows.shape[1]

    def false_slots(self, evidence: Evidence, rows: Int[Tensor, " row"]) -> Bool[Tensor, "row k"]:
        """Which code slots of some tokens hold a false concept."""
        codes: Codes = evidence.codes.select(rows)
        unknown = self._unknown(self.neighbours(evidence.acts[rows]), codes)
        bucket = self.buckets[evidence.tokens[rows]]
        return (codes.values != 0) & (unknown | self.unsupported[bucket[:, None], codes.indices])

    def _unknown(self, near: Int[Tensor, "row k"], codes: Codes) -> Bool[Tensor, "row slot"]:
        """Which code slots hold a concept that fires on none of the near clean tokens."""
        if native.usable() and self.active.dtype == torch.int32:
            return native.absent(near, self.active, codes.indices, codes.width)
        # One place more than there are latents takes the padding.
        known = torch.zeros(codes.indices.shape[0], codes.width + 1, dtype=torch.bool)
        return ~known.scatter_(1, self.active[near].flatten(1).long(), value=True).gather(1, codes.indices)

    def score(self, evidence: Evidence) -> PerToken:
        """Count."""

        def part(rows: Tensor) -> Tensor:
            return self.false_slots(evidence, rows).sum(1).to(torch.float32)

        return by_rows(part, evidence.tokens.shape[0], rows=_ROWS)
