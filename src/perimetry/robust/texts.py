"""Pairs of clean and corrupted text to tune on: drawn with seeds, so that a run that goes on reads what it would have read."""

import random
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from perimetry.activations.twins import Twin, TwinRows
from perimetry.errors import UnknownName
from perimetry.perturb import PERTURBATIONS

__all__ = ["Corruption", "corrupted", "draw_twins", "order_of", "tokens_of"]


@runtime_checkable
class HasText(Protocol):
    """A passage."""

    @property
    def id(self) -> str:
        """Its name."""
        ...

    @property
    def text(self) -> str:
        """Its text."""
        ...


class Corruption(NamedTuple):
    """A perturbation at a dose."""

    kind: str
    """Name in `PERTURBATIONS`."""
    dose: float
    """Share of the eligible units that is changed."""


def corrupted(text: str, corruption: Corruption, seed: str) -> str:
    """`text` under a corruption; the same seed gives nested doses. Errors: `UnknownName`, `UsageError`."""
    if corruption.kind not in PERTURBATIONS:
        raise UnknownName("perturbation", corruption.kind, PERTURBATIONS)
    return PERTURBATIONS[corruption.kind]().apply(text, corruption.dose, random.Random(seed))


def draw_twins(passages: Sequence[HasText], kinds: Sequence[str], doses: Sequence[float], seed: int) -> list[Twin]:
    """Each passage with one corruption of itself, kind and dose drawn by the seed. Errors: as `corrupted`."""
    found: list[Twin] = []
    for passage in passages:
        draw = random.Random(f"tune:{seed}:{passage.id}")
        chosen = Corruption(draw.choice(list(kinds)), draw.choice(list(doses)))
        found.append(Twin(passage.id, passage.text, corrupted(passage.text, chosen, f"tune:{seed}:{passage.id}:text")))
    return found


def tokens_of(twins: Sequence[TwinRows]) -> int:
    """Tokens of the corrupted sides: what a budget counts."""
    return sum(len(twin.corrupted.ids) for twin in twins)


def order_of(update: int, total: int, batch: int, seed: int) -> list[int]:
    """Which of `total` pairs an update reads: epochs of seeded permutations, cut into batches that may cross their ends.

    >>> sorted(order_of(0, 4, 2, 0) + order_of(1, 4, 2, 0))
    [0, 1, 2, 3]
    """
    orders: dict[int, list[int]] = {}
    found: list[int] = []
    for place in range(update * batch, (update + 1) * batch):
        epoch, at = divmod(place, total)
        if epoch not in orders:
            orders[epoch] = list(range(total))
            random.Random(f"order:{seed}:{epoch}").shuffle(orders[epoch])
        found.append(orders[epoch][at])
    return found
