"""Counts of what fires, gathered chunk by chunk: what a dense pass says of codes that it never lists."""

from typing import final

import torch
from torch import Tensor

from perimetry.axes import Latents
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Summary

__all__ = ["Tally", "nothing_listed"]


@final
class Tally:
    """Active counts, latents that fired and the smallest code of a batch."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.entries, self.tokens, self.smallest = 0, 0, float("inf")
        self.fired = torch.zeros(width, dtype=torch.bool, device=device)

    def add(self, codes: Latents, fires: Tensor) -> None:
        """Count in a chunk; `fires` marks the codes that are not 0, all of them positive."""
        self.entries += int(fires.sum())
        self.tokens += fires.shape[0]
        self.fired |= fires.any(0)
        self.smallest = min(self.smallest, float(torch.where(fires, codes, torch.inf).min()))

    def summary(self) -> Summary:
        """What the loop must know.

        >>> tally = Tally(3, torch.device("cpu"))
        >>> codes = torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 3.0]])
        >>> tally.add(codes, codes > 0)
        >>> tally.summary().l0, tally.summary().smallest
        (1.5, 1.0)
        """
        smallest = self.smallest if self.entries else None
        return Summary(self.entries / max(1, self.tokens), self.fired, smallest)


def nothing_listed(tokens: int, width: int, like: Tensor) -> Active:
    """A matrix without entries, in the place of codes that were summarised."""
    offsets = torch.zeros(tokens + 1, dtype=torch.int64, device=like.device)
    return Active(offsets, offsets.new_zeros(0), like.new_zeros(0), width)
