"""Baselines of nearest clean tokens, on the same layer's activations."""

from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import Acts, ModelBias, PerToken
from perimetry.sae.steps import native
from perimetry.sae.steps.low import low_usable
from perimetry.sae.steps.select import Collector, PreActivations, TopK, collect
from perimetry.shift.base import Evidence
from perimetry.shift.profile import Profile
from perimetry.shift.stateful import TensorDetector, by_rows

__all__ = ["KNN", "Cosine", "Nearest", "largest", "nearest", "unit"]

_NEIGHBOURS: Final = 10
_GROUP: Final = 16
_FEW: Final = 32
"""Up to so many the compiled kernel, which keeps a list of them, is fastest."""
_ROWS: Final = 256
"""Rows of a product that is formed whole; they stay in the cache."""


class Nearest(NamedTuple):
    """The largest entries of each row, in no order."""

    values: Float[Tensor, "row k"]
    """Entries."""
    indices: Int[Tensor, "row k"]
    """Their columns."""


def unit(x: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
    """Rows of length 1."""
    return torch.nn.functional.normalize(x, dim=1)


def largest(x: Float[Tensor, "row column"], k: int) -> Nearest:
    """The `k` largest entries of each row, like `topk` but several times faster on wide rows.

    Without the compiled kernels: they lie in the `k` groups of columns with the largest maxima, so that only those are ranked.

    >>> sorted(largest(torch.tensor([[1.0, 4.0, 2.0, 3.0]]), 2).indices[0].tolist())
    [1, 3]
    """
    if k <= _FEW < x.shape[1] and native.usable(x):
        columns = native.largest(x, k)
        return Nearest(x.gather(1, columns), columns)
    groups = x.shape[1] // _GROUP
    if groups <= k:
        return Nearest(*x.topk(min(k, x.shape[1]), dim=1, sorted=False))
    # A group is every so many-th column: maxima of neighbouring columns side by side are found several times faster.
    body = x[:, : groups * _GROUP].unflatten(1, (_GROUP, groups))
    best = body.amax(1).topk(k, dim=1, sorted=False).indices
    columns = (best[:, :, None] + groups * torch.arange(_GROUP)).flatten(1)
    rest = torch.arange(groups * _GROUP, x.shape[1]).expand(x.shape[0], -1)
    columns = torch.cat([columns, rest], 1)
    values, slot = x.gather(1, columns).topk(k, dim=1, sorted=False)
    return Nearest(values, columns.gather(1, slot))


def nearest(
    x: Float[Tensor, "row d"], table: Float[Tensor, "column d"], k: int, offset: Float[Tensor, " column"] | None = None
) -> Nearest:
    """The `k` largest of `x @ table.T + offset` in each row, found by a product of few bits where the processor has one.

    What leaves are float32 products, and those are the largest, as `collect` certifies.

    >>> nearest(torch.eye(2), torch.tensor([[1.0, 0.0], [3.0, 0.5], [0.0, 2.0]]), 1).indices.tolist()
    [[1], [2]]
    """
    product = PreActivations(x.contiguous(), table, torch.zeros(table.shape[0]) if offset is None else offset)
    k = min(k, table.shape[0])
    found = Nearest(x.new_empty(x.shape[0], k), torch.empty(x.shape[0], k, dtype=torch.int64))
    left = torch.arange(x.shape[0])
    top: list[Collector] = [TopK(k)]
    if low_usable(product, top):
        (active,) = collect(product, top)
        # Only positive ones are listed; a row that has too few of them is done below.
        counts = active.offsets.diff()
        full = counts == k
        listed = full.repeat_interleave(counts)
        found.values[full], found.indices[full] = active.values[listed].view(-1, k), active.columns[listed].view(-1, k)
        left = (~full).nonzero()[:, 0]
    for rows in left.split(_ROWS):
        best = largest(torch.addmm(product.b_enc, product.acts[rows], table.T), k)
        found.values[rows], found.indices[rows] = best.values, best.indices
    return found


@final
@dataclass(frozen=True, eq=False)
class KNN(TensorDetector):
    """Euclidean distance to the tenth nearest clean token of the profile's sample (after Sun et al. 2022)."""

    name: ClassVar[str] = "knn"
    needs_sae: ClassVar[bool] = False
    baseline: ClassVar[bool] = True
    mean: ModelBias
    sample: Acts

    @classmethod
    def fit(cls, profile: Profile) -> "KNN":
        """Keep the sample, in bfloat16. Errors: `TooFewSamples`."""
        profile.require(_NEIGHBOURS, "the nearest neighbours")
        return cls(profile.mean().float(), profile.sample.columns["acts"])

    def score(self, evidence: Evidence) -> PerToken:
        """Distance."""
        sample = self.sample.float() - self.mean
        size = sample.square().sum(1)

        def part(rows: Tensor) -> Tensor:
            x = evidence.acts[rows].float() - self.mean
            near = nearest(2 * x, sample, _NEIGHBOURS, -size).values.amin(1)
            return (x.square().sum(1) - near).clamp_min(0).sqrt()

        return by_rows(part, evidence.tokens.shape[0])


@final
@dataclass(frozen=True, eq=False)
class Cosine(TensorDetector):
    """1 minus the mean cosine similarity to the ten most similar clean tokens of the sample, all centred. In [0, 2]."""

    name: ClassVar[str] = "cosine"
    needs_sae: ClassVar[bool] = False
    baseline: ClassVar[bool] = True
    mean: ModelBias
    sample: Acts

    @classmethod
    def fit(cls, profile: Profile) -> "Cosine":
        """Keep the directions of the sample, in bfloat16. Errors: `TooFewSamples`."""
        profile.require(_NEIGHBOURS, "the nearest neighbours")
        mean = profile.mean().float()
        return cls(mean, unit(profile.sample.columns["acts"].float() - mean).bfloat16())

    def score(self, evidence: Evidence) -> PerToken:
        """Distance."""
        sample = self.sample.float()

        def part(rows: Tensor) -> Tensor:
            return 1 - nearest(unit(evidence.acts[rows].float() - self.mean), sample, _NEIGHBOURS).values.mean(1)

        return by_rows(part, evidence.tokens.shape[0])
