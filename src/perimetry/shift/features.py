"""What the profile counts and the detectors ask about: defined once, so that both mean the same."""

from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.axes import Acts
from perimetry.sae.base import Codes
from perimetry.shift.base import Evidence
from perimetry.shift.sketch import LogBins

__all__ = [
    "BUCKETS",
    "ERROR_BINS",
    "PAIRED_CONCEPTS",
    "POOLED_SLOTS",
    "VALUE_BINS",
    "Pairs",
    "ahead_rows",
    "context_features",
    "edge_rows",
    "pair_keys",
    "pooled_codes",
    "step_rows",
    "strongest_pooled",
    "token_buckets",
]

VALUE_BINS: Final = LogBins(octave=-12.0, per_octave=4, number=128)
"""Bins of activation values: 2^-12 to 2^20, each 19 % wide."""
ERROR_BINS: Final = LogBins(octave=-40.0, per_octave=32, number=3200)
"""Bins of squared reconstruction errors: 2^-40 to 2^60, each 2.2 % wide."""
BUCKETS: Final = 256
"""Token buckets."""
_OWN: Final = 192
PAIRED_CONCEPTS: Final = 32
"""Concepts of a prompt whose pairs `coactivation` counts."""
POOLED_SLOTS: Final = 512
"""Concepts of a prompt that its pooled code keeps."""


class Pairs(NamedTuple):
    """Ordered pairs of latents, and what they belong to."""

    first: Int[Tensor, " pair"]
    """The one that comes first (or has the smaller index)."""
    second: Int[Tensor, " pair"]
    """The other one."""
    owner: Int[Tensor, " pair"]
    """Row of the prompt."""


def token_buckets(unigrams: Int[Tensor, " vocab"]) -> Int[Tensor, " vocab"]:
    """A bucket for each vocabulary id: the 192 most frequent ids have their own, the others share 64 of equal mass.

    Without counts (all zero) the bucket is the id modulo 256.
    """
    ids = torch.arange(unigrams.shape[0])
    if not int(unigrams.sum()):
        return ids % BUCKETS
    order = torch.argsort(unigrams, descending=True, stable=True)
    tail = (unigrams[order][_OWN:] + 1).cumsum(0)
    bands = BUCKETS - _OWN
    rank = torch.arange(order.numel())
    if tail.numel():
        rank[_OWN:] = _OWN + ((tail - 1) * bands // tail[-1]).clamp_max(bands - 1)
    return torch.empty_like(rank).index_copy_(0, order, rank)


def context_features(acts: Acts, positions: Int[Tensor, " token"]) -> Float[Tensor, "token feature"]:
    """What the active count may depend on innocently: 1, log position and its square, log norm and its square."""
    place = positions.double().log1p()
    norm = acts.double().norm(dim=1).clamp_min(1e-12).log()
    return torch.stack([torch.ones_like(place), place, place.square(), norm, norm.square()], 1)


def pooled_codes(evidence: Evidence) -> Codes:
    """Mean activation of each concept over the tokens of a prompt: a code for each prompt, its 512 strongest slots."""
    if evidence.pooled is not None:
        return evidence.pooled
    codes, n = evidence.codes, evidence.n_prompts
    cells = evidence.prompt[:, None] * codes.width + codes.indices
    dense = torch.zeros(n * codes.width, dtype=torch.float64)
    dense.index_add_(0, cells.reshape(-1), codes.values.reshape(-1).double())
    dense = dense.view(n, codes.width) / evidence.lengths().double()[:, None]
    values, indices = dense.float().topk(min(POOLED_SLOTS, codes.width), dim=1)
    return Codes(torch.where(values > 0, indices, 0), values.clamp_min(0), codes.width)


def strongest_pooled(pooled: Codes, m: int) -> tuple[Int[Tensor, "prompt m"], Bool[Tensor, "prompt m"]]:
    """The `m` strongest concepts of each prompt, by index ascending, and which of these places are filled."""
    slots = min(m, pooled.indices.shape[1])
    held = pooled.values[:, :slots] > 0
    top, order = pooled.indices[:, :slots].masked_fill(~held, pooled.width).sort(1)
    held = held.gather(1, order)
    return top.masked_fill(~held, 0), held


def pair_keys(top: Int[Tensor, "prompt m"], held: Bool[Tensor, "prompt m"]) -> Pairs:
    """All pairs a < b of the concepts of each prompt."""
    left, right = torch.triu_indices(top.shape[1], top.shape[1], offset=1)
    both = held[:, left] & held[:, right]
    owner = torch.arange(top.shape[0])[:, None].expand_as(both)
    return Pairs(top[:, left][both], top[:, right][both], owner[both])


def step_rows(evidence: Evidence) -> Int[Tensor, " step"]:
    """The tokens with two scorable predecessors in their prompt, ascending."""
    return (evidence.prompt[2:] == evidence.prompt[:-2]).nonzero()[:, 0] + 2


def ahead_rows(evidence: Evidence) -> Int[Tensor, " row"]:
    """The tokens before which the model has read more than one token, ascending.

    What it foresees after a single one, a BOS or a sink, is the same for every prompt, or odd.
    """
    return (evidence.positions >= 2).nonzero()[:, 0]


def edge_rows(evidence: Evidence, lag: int) -> Int[Tensor, " edge"]:
    """The tokens that are not `lag` tokens before one of `step_rows`, ascending: the others precede one step each."""
    apart = torch.ones(evidence.tokens.shape[0], dtype=torch.bool)
    apart[step_rows(evidence) - lag] = False
    return apart.nonzero()[:, 0]
