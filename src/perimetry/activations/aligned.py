"""Several stores of the same tokens, read as one: the activations at several places of a token side by side."""

from collections.abc import Iterator, Sequence
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from perimetry.activations.shards import ActivationStore
from perimetry.axes import Acts
from perimetry.errors import Incompatible, TooFewSamples

__all__ = ["AlignedStores"]

OWN = ("hook", "layer", "version")
"""Fields of a plan in which aligned stores differ."""


@final
class AlignedStores:
    """Rows of stores from one harvest with `aligned`; columns of the first store come first.

    Errors: `Incompatible` for stores whose rows are not the same tokens, `TooFewSamples` without a store.
    """

    def __init__(self, stores: Sequence[ActivationStore]) -> None:
        if not stores:
            raise TooFewSamples("no stores to read side by side; give one or more")
        self.stores = tuple(stores)
        """In the order of their columns."""
        first = self.stores[0]
        for store in self.stores[1:]:
            keys = (store.plan.keys() | first.plan.keys()) - set(OWN)
            different = sorted(key for key in keys if store.plan.get(key) != first.plan.get(key))
            if different or "aligned" not in store.plan or len(store) != len(first):
                raise Incompatible(
                    f"row i of {store.path} is not the token of row i of {first.path} "
                    f"({', '.join(different) or 'they were harvested apart'}); harvest both in one call, aligned"
                )

    def __len__(self) -> int:
        return len(self.stores[0])

    def rows(self, ids: Int[Tensor, " row"]) -> Acts:
        """Activations of rows in float32, side by side."""
        return torch.cat([store.rows(ids) for store in self.stores], 1)

    def batches(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[Acts]:
        """As `ActivationStore.batches`, and in the same order."""
        return map(self.rows, self.stores[0].batch_ids(batch, seed, start_step))

    def pairs(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[Acts]:
        """As `ActivationStore.pairs`, and in the same order."""
        return map(self.rows, self.stores[0].pair_ids(batch, seed, start_step))
