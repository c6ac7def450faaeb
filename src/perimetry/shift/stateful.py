"""The common half of the detectors: a frozen dataclass whose fields are tensors is its own state."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import Acts, PerToken
from perimetry.errors import CorruptArtifact, UsageError
from perimetry.sae.base import Codes
from perimetry.shift.base import AbstractDetector, Evidence, LogitStats
from perimetry.shift.profile import Profile

__all__ = ["PlainDetector", "TensorDetector", "by_rows", "foresight_of", "logits_of", "sum_active"]

T = TypeVar("T", bound="TensorDetector")


@dataclass(frozen=True, eq=False)
class TensorDetector(AbstractDetector):
    """A detector whose fields are all tensors."""

    def state(self) -> dict[str, Tensor]:
        """Copies of the fields: detectors share tables with their profile, and a file holds no shared memory."""
        return {
            field.name: getattr(self, field.name).clone(memory_format=torch.contiguous_format) for field in fields(self)
        }

    @classmethod
    def from_state(cls: type[T], state: dict[str, Tensor]) -> T:
        """The detector that `state` was taken from. Errors: `CorruptArtifact` when fields are missing or unknown."""
        wanted = {field.name for field in fields(cls)}
        if set(state) != wanted:
            raise CorruptArtifact(
                f"the state of detector {cls.name!r} holds {sorted(state)}, wanted {sorted(wanted)}; fit it again"
            )
        return cls(**state)


@dataclass(frozen=True, eq=False)
class PlainDetector(TensorDetector):
    """A detector that learns nothing from clean text."""

    @classmethod
    def fit(cls: type[T], profile: Profile) -> T:
        """Refuse an empty profile, for the sake of one rule for all; learn nothing."""
        profile.require(1, f"detector {cls.name!r}")
        return cls()


def sum_active(codes: Codes, weights: Float[Tensor, " d_sae"]) -> PerToken:
    """Sum of a weight for each active concept.

    >>> codes = Codes(torch.tensor([[2, 0, 0]]), torch.tensor([[5.0, 1.0, 0.0]]), 3)
    >>> sum_active(codes, torch.tensor([0.5, 9.0, 2.0]))
    tensor([2.5000])
    """
    return (weights[codes.indices] * (codes.values != 0)).sum(1)


def logits_of(evidence: Evidence, name: str) -> LogitStats:
    """The next-token statistics. Errors: `UsageError` where the forward pass stopped at the tap."""
    if evidence.logits is None:
        raise UsageError(
            f"detector {name!r} needs the next-token distribution, but the forward pass stopped at the tap; run it to "
            "the end, or leave this detector out"
        )
    return evidence.logits


def foresight_of(evidence: Evidence, name: str) -> Acts:
    """What the model foresaw of each token. Errors: `UsageError` where the forward pass stopped at the tap."""
    if evidence.foresight is None:
        raise UsageError(
            f"detector {name!r} needs the model's last hidden state, but the forward pass stopped at the tap; run it to "
            "the end, or leave this detector out"
        )
    return evidence.foresight


def by_rows(score: Callable[[Int[Tensor, " row"]], Tensor], tokens: int, rows: int = 1024) -> PerToken:
    """Score tokens some rows at a time, which bounds the memory of dense products."""
    parts = [score(part) for part in torch.arange(tokens).split(rows)]
    return torch.cat(parts) if parts else torch.zeros(0)
