"""A short vector for each prompt, by which drift of the traffic is judged: the main score under every pooling, and where its codes point.

The second part is the mean code of the prompt, projected on 32 fixed directions of random signs, which roughly keeps the
distances between prompts (Achlioptas 2003).
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import PerPrompt
from perimetry.errors import CorruptArtifact
from perimetry.shift.base import Evidence
from perimetry.shift.pooling import parse_score, score_names
from perimetry.shift.tables import LEVELS

__all__ = ["DIRECTIONS", "Summaries", "directions", "mean_codes", "terms_of"]

DIRECTIONS: Final = 32
"""Directions that mean codes are projected on."""
_SEED: Final = 20_260_131


class Summaries(NamedTuple):
    """The summaries of the calibration prompts."""

    terms: tuple[str, ...]
    """Names of the scores that the columns begin with, the main score first."""
    vectors: Float[Tensor, "prompt column"]
    """The scores, then the projection."""
    group: Int[Tensor, " prompt"]
    """Group of each prompt, as `LengthGroups.index` numbers them."""

    def state(self) -> dict[str, Tensor]:
        """The tensors of it."""
        return {"vectors": self.vectors, "group": self.group}

    @classmethod
    def from_state(cls, terms: Any, state: Mapping[str, Tensor]) -> "Summaries":
        """What `state` was taken from. Errors: `CorruptArtifact`."""
        vectors, group = state.get("vectors"), state.get("group")
        if vectors is None or group is None or vectors.ndim != 2 or group.shape != vectors.shape[:1]:
            raise CorruptArtifact("this is no state of the summaries of calibration prompts; calibrate again")
        names = tuple(map(str, terms))
        if vectors.shape[1] != len(names) + DIRECTIONS:
            raise CorruptArtifact(
                f"the summaries of calibration prompts have {vectors.shape[1]} columns, {len(names)} scores and {DIRECTIONS} "
                "directions were wanted; calibrate again"
            )
        return cls(names, vectors, group)


def terms_of(main: str) -> tuple[str, ...]:
    """The main score and its other poolings, which cost next to nothing beside it.

    >>> terms_of("surprise.top10")
    ('surprise.top10', 'surprise', 'surprise.cusum', 'surprise.max')
    """
    detector = parse_score(main, LEVELS).detector
    return tuple(dict.fromkeys((main, *score_names({detector: LEVELS[detector]}))))


def directions(width: int) -> Float[Tensor, "width direction"]:
    """The fixed directions for a dictionary of so many concepts: signs, the same on every machine and in every version."""
    # The bits of a generator are promised not to change, unlike the distributions that are made of them.
    drawn = np.random.PCG64(_SEED).random_raw(-(-width * DIRECTIONS // 64)).astype("<u8")
    signs = np.unpackbits(drawn.view(np.uint8))[: width * DIRECTIONS].reshape(width, DIRECTIONS)
    return torch.from_numpy(2.0 * signs.astype(np.float32) - 1.0)


def mean_codes(evidence: Evidence, onto: Float[Tensor, "width direction"]) -> Float[Tensor, "prompt direction"]:
    """The mean code of the tokens of each prompt that count, projected."""
    lengths: PerPrompt = evidence.lengths()
    codes = evidence.codes
    starts = lengths.long().cumsum(0) - lengths.long()
    summed = torch.nn.functional.embedding_bag(
        codes.indices.reshape(-1),
        onto,
        starts * codes.indices.shape[1],
        mode="sum",
        per_sample_weights=codes.values.reshape(-1).to(onto.dtype),
    )
    return summed / lengths[:, None]
