"""Distances of a prompt's mean code from those of clean prompts."""

from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import PerPrompt
from perimetry.errors import TooFewSamples
from perimetry.shift.base import Evidence, Level
from perimetry.shift.features import pooled_codes
from perimetry.shift.knn import largest
from perimetry.shift.profile import Profile
from perimetry.shift.stateful import TensorDetector

__all__ = ["CodeKNN", "CodeMahalanobis"]

_NEIGHBOURS: Final = 5
_DIRECTIONS: Final = 64
_PROMPTS: Final = 2048


def _require_prompts(profile: Profile, least: int, what: str) -> None:
    have = profile.prompt_sample.keys.numel()
    if have < least:
        raise TooFewSamples(f"{what} needs {least} clean prompts and the profile keeps {have}; give more clean text")


def _dense(indices: Tensor, values: Tensor, width: int) -> Tensor:
    return torch.zeros(indices.shape[0], width + 1).scatter_(1, indices.long(), values.float())[:, :width]


@final
@dataclass(frozen=True, eq=False)
class CodeKNN(TensorDetector):
    """1 minus the mean cosine similarity of the prompt's mean code to the five most similar clean ones. In [0, 1]."""

    name: ClassVar[str] = "code_knn"
    level: ClassVar[Level] = "prompt"
    reads_pooled: ClassVar[bool] = True
    indices: Int[Tensor, "row slot"]
    values: Float[Tensor, "row slot"]

    @classmethod
    def fit(cls, profile: Profile) -> "CodeKNN":
        """Keep the clean mean codes, scaled to length 1. Errors: `TooFewSamples`."""
        _require_prompts(profile, _NEIGHBOURS, "code_knn")
        rows = profile.prompt_sample.columns
        values = torch.nn.functional.normalize(rows["values"].float(), dim=1)
        return cls(rows["indices"], values.bfloat16())

    def score(self, evidence: Evidence) -> PerPrompt:
        """Distance."""
        query = torch.nn.functional.normalize(pooled_codes(evidence).dense().float(), dim=1)
        # Latent-major, with a row of zeros that the padding slots read.
        table = torch.nn.functional.pad(query, (0, 1)).T.contiguous()
        values = self.values.float()
        similar = torch.nn.functional.embedding_bag(self.indices, table, per_sample_weights=values, mode="sum")
        return 1 - largest(similar.T.contiguous(), _NEIGHBOURS).values.mean(1)


@final
@dataclass(frozen=True, eq=False)
class CodeMahalanobis(TensorDetector):
    """Mahalanobis distance of the prompt's mean code under probabilistic PCA of the clean ones, over the width.

    The covariance is V diag(size) V' + noise (I - V V'): 64 principal directions and one variance for the rest (Tipping
    and Bishop 1999), since there are fewer clean prompts than latents. Fitted on at most 2,048 prompts.
    """

    name: ClassVar[str] = "code_mahalanobis"
    level: ClassVar[Level] = "prompt"
    reads_pooled: ClassVar[bool] = True
    mean: Float[Tensor, " d_sae"]
    directions: Float[Tensor, "d_sae kept"]
    sizes: Float[Tensor, " kept"]
    noise: Float[Tensor, ""]

    @classmethod
    def fit(cls, profile: Profile) -> "CodeMahalanobis":
        """Take the principal directions from the Gram matrix of the prompts. Errors: `TooFewSamples`."""
        _require_prompts(profile, 16, "code_mahalanobis")
        rows = {name: column[:_PROMPTS] for name, column in profile.prompt_sample.columns.items()}
        dense = _dense(rows["indices"], rows["values"], profile.d_sae).double()
        n, mean = dense.shape[0], dense.mean(0)
        centred = dense - mean
        size, vectors = torch.linalg.eigh(centred @ centred.T / n)
        size, vectors = size.flip(0).clamp_min(0), vectors.flip(1)
        kept = min(_DIRECTIONS, n // 8, profile.d_sae - 1)
        rest = (size[kept:].sum() / (profile.d_sae - kept)).clamp_min(1e-12)
        sizes = torch.maximum(size[:kept], rest)
        directions = centred.T @ vectors[:, :kept] / (n * size[:kept]).clamp_min(1e-300).sqrt()
        return cls(mean.float(), directions.float(), sizes.float(), rest.float())

    def score(self, evidence: Evidence) -> PerPrompt:
        """Squared distance over the number of latents."""
        centred = pooled_codes(evidence).dense().float() - self.mean
        along = (centred @ self.directions).square()
        rest = (centred.square().sum(1) - along.sum(1)).clamp_min(0) / self.noise
        return ((along / self.sizes).sum(1) + rest) / centred.shape[1]
