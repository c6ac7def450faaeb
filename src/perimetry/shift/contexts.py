"""The clean passages on which each latent fires hardest: what a concept usually means."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["TopContexts"]


@final
class TopContexts:
    """For each latent, the `best` passages on which it fires hardest, one token a passage; merged in any order."""

    def __init__(self, value: Tensor, passage: Tensor, token: Tensor) -> None:
        """Tables `(d_sae, best)`, hardest first; an empty place has value 0 and passage -1."""
        self.value = value
        self.passage = passage
        self.token = token

    @classmethod
    def empty(cls, d_sae: int, best: int = 3) -> "TopContexts":
        """Nothing seen yet."""
        blank = torch.full((d_sae, best), -1, dtype=torch.int64)
        return cls(torch.zeros(d_sae, best), blank, blank.clone())

    def update(
        self,
        indices: Int[Tensor, "token k"],
        values: Float[Tensor, "token k"],
        passage: Int[Tensor, " token"],
        token: Int[Tensor, " token"],
    ) -> None:
        """See tokens: their codes, the caller's number of their passage (at least 0), and their place in it."""
        best = self.value.shape[1]
        hot = (values > 0) & (values >= self.value[:, best - 1][indices])
        self._insert(
            indices[hot],
            values[hot].float(),
            passage[:, None].expand_as(indices)[hot],
            token[:, None].expand_as(indices)[hot],
        )

    def merge(self, other: "TopContexts") -> "TopContexts":
        """The hardest of both."""
        out = TopContexts(self.value.clone(), self.passage.clone(), self.token.clone())
        latent = torch.arange(other.value.shape[0])[:, None].expand_as(other.passage)
        held = other.passage >= 0
        out._insert(latent[held], other.value[held], other.passage[held], other.token[held])
        return out

    def _insert(self, latent: Tensor, value: Tensor, passage: Tensor, token: Tensor) -> None:
        d_sae, best = self.value.shape
        held = self.passage >= 0
        own = torch.arange(d_sae)[:, None].expand_as(self.passage)[held]
        latent = torch.cat([own, latent])
        value = torch.cat([self.value[held], value])
        passage = torch.cat([self.passage[held], passage])
        token = torch.cat([self.token[held], token])

        def arrange(*columns: Tensor) -> None:
            nonlocal latent, value, passage, token
            order = torch.arange(latent.numel())
            for column in columns:
                order = order[torch.argsort(column[order], stable=True)]
            latent, value, passage, token = latent[order], value[order], passage[order], token[order]

        arrange(token, -value, passage, latent)
        first = torch.ones_like(latent, dtype=torch.bool)
        first[1:] = (latent[1:] != latent[:-1]) | (passage[1:] != passage[:-1])
        latent, value, passage, token = latent[first], value[first], passage[first], token[first]
        arrange(passage, -value, latent)
        start = torch.searchsorted(latent, latent)
        rank = torch.arange(latent.numel()) - start
        top = rank < best
        empty = TopContexts.empty(d_sae, best)
        self.value, self.passage, self.token = empty.value, empty.passage, empty.token
        for table, column in ((self.value, value), (self.passage, passage), (self.token, token)):
            table[latent[top], rank[top]] = column[top]
