"""The world: entities in three independent cyclic orders, relations that name neighbours in them, and walks along those relations.

A sequence is an entity, then again and again one relation, or two, and the entity to which they lead: `x r x' r s x''`. Of some facts only
the inverse is ever shown (logical hold-outs), and some pairs of relations of an entity are never shown (compositional ones).
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from perimetry.axes import TokenIds
from perimetry.errors import ConfigError
from perimetry.runtime import generator

__all__ = ["CONTEXT", "EACH", "FAR", "KINDS", "ORDERS", "Facts", "Prompts", "World", "joined"]

ORDERS: Final = ("I", "II", "III")
"""Edited, retained, test: all are trained on alike."""
FAR: Final = 4
"""Furthest neighbour that a relation names."""
EACH: Final = 2 * FAR
"""Relations of an order: clockwise neighbours first."""
CONTEXT: Final = 16
"""Tokens of a sequence."""
KINDS: Final = ("direct", "logical", "compositional")
"""Facts that were shown; facts of which the inverse was shown; pairs of relations of which only other entities were shown."""
NONE: Final = -1
POOL: Final = 16
"""Sequences for every entity from which beginnings of prompts are taken."""


class Facts(NamedTuple):
    """Some questions and their right answers."""

    entity: Int[Tensor, " fact"]
    """Where one begins."""
    relations: Int[Tensor, "fact step"]
    """One relation or two, by number."""
    answer: Int[Tensor, " fact"]
    """Where one ends."""

    def some(self, count: int, draw: torch.Generator) -> "Facts":
        """At most so many of them, drawn without replacement."""
        return self.at(torch.randperm(len(self.entity), generator=draw)[:count])

    def at(self, rows: Shaped[Tensor, " row"]) -> "Facts":
        """Some of them, by number or by a mask."""
        return Facts(*(one[rows] for one in self))


class Prompts(NamedTuple):
    """Questions as tokens, what comes behind them filled with anything: nothing looks back from there."""

    ids: TokenIds
    """Tokens."""
    at: Int[Tensor, " prompt"]
    """Position of the last relation, where the answer is foretold."""


@final
class World:
    """The orders, what is held out, and sequences."""

    def __init__(self, entities: int, seed: int, held: float = 0.05) -> None:
        """`held`: share of facts and of pairs that are held out. Errors: `ConfigError` for orders too small for the relations."""
        if entities < EACH + 2:
            raise ConfigError(f"{entities} entities; give {EACH + 2} or more, so that neighbours differ")
        self.entities, self.relations, self.vocab = entities, len(ORDERS) * EACH, entities + len(ORDERS) * EACH
        draw = generator(982_451_653 % 2**31 + seed)
        ring = torch.stack([torch.randperm(entities, generator=draw) for _ in ORDERS])
        self.place: Int[Tensor, "order entity"] = ring.argsort(1)
        steps = torch.cat([torch.arange(1, FAR + 1), -torch.arange(1, FAR + 1)])
        self.after: Int[Tensor, "entity relation"] = torch.cat(
            [order[(place[:, None] + steps) % entities] for order, place in zip(ring, self.place, strict=True)], 1
        )
        self.ring: Int[Tensor, "order place"] = ring
        anticlockwise = torch.arange(self.relations) % EACH >= FAR
        self.held: Bool[Tensor, "entity relation"] = self._some(held, draw, entities, self.relations) & anticlockwise
        self.held_pairs: Bool[Tensor, "entity relation step"] = self._some(held, draw, entities, self.relations, EACH)
        # The second relations that may follow, first in their row, and how many they are.
        self._may = self.held_pairs.double().sort(dim=2, stable=True).indices
        self._count = (~self.held_pairs).sum(2)

    @staticmethod
    def _some(share: float, draw: torch.Generator, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=draw) < share

    def token(self, relation: Int[Tensor, "*any"]) -> Int[Tensor, "*any"]:
        """Token of a relation."""
        return relation + self.entities

    def distance(self, order: int) -> Float[Tensor, "entity entity"]:
        """Steps from one entity to another along an order, the shorter way round."""
        gap = (self.place[order][:, None] - self.place[order]).abs()
        return torch.minimum(gap, self.entities - gap).double()

    def facts(self, order: int, kind: str) -> Facts:
        """Every question of a kind of an order. Pairs are of relations of the same order."""
        own = torch.arange(order * EACH, (order + 1) * EACH)
        if kind == "compositional":
            entity, first, second = self.held_pairs[:, own].nonzero().unbind(1)
            steps = torch.stack([first, second], 1) + order * EACH
        else:
            entity, first = (self.held if kind == "logical" else ~self.held)[:, own].nonzero().unbind(1)
            steps = first[:, None] + order * EACH
        return Facts(entity, steps, self.follow(entity, steps))

    def follow(self, entity: Int[Tensor, " fact"], steps: Int[Tensor, "fact step"]) -> Int[Tensor, " fact"]:
        """Where relations lead."""
        for relation in steps.unbind(1):
            entity = self.after[entity, relation]
        return entity

    def draw(self, count: int, draw: torch.Generator, length: int = CONTEXT) -> TokenIds:
        """Sequences, without what is held out."""
        ids = torch.empty(count, length, dtype=torch.long)
        ids[:, 0] = entity = torch.randint(0, self.entities, (count,), generator=draw)
        # Relation that waits for a second one or for its entity; where the entity will be.
        first, aim = torch.full((count,), NONE), entity
        ends = torch.zeros(count, dtype=torch.bool)
        chance = torch.rand(length, 2, count, generator=draw)
        for position in range(1, length):
            begin = first == NONE
            fresh = (chance[position, 0] * self.relations).long()
            known = first.clamp_min(0)
            rank = (chance[position, 0] * self._count[entity, known]).long()
            second = known // EACH * EACH + self._may[entity, known, rank]
            two = ~begin & ~ends
            relation = torch.where(begin, fresh, second)
            aim = self.after[torch.where(begin, entity, aim), relation].where(begin | two, aim)
            ids[:, position] = torch.where(ends, aim, self.token(relation))
            entity = torch.where(ends, aim, entity)
            single = begin & (chance[position, 1] < 0.5) & ~self.held[entity, fresh]
            first = torch.where(ends, NONE, torch.where(begin, fresh, first))
            ends = single | two
        return ids

    def prompts(
        self, facts: Facts, draw: torch.Generator | None = None, longest: int = CONTEXT, pool: int | None = None
    ) -> Prompts:
        """Questions, each behind the beginning of a sequence that leads to its entity; without `draw` with nothing before them.

        `longest`: most tokens of a prompt; `pool`: sequences that beginnings are taken from. Errors: `ConfigError` where none of them leads
        to an entity.
        """
        steps = facts.relations.shape[1]
        if draw is None:
            ids = torch.cat([facts.entity[:, None], self.token(facts.relations)], 1)
            return Prompts(ids, torch.full_like(facts.entity, steps))
        pool = POOL * self.entities if pool is None else pool
        drawn = self.draw(pool, draw, longest - steps)
        row, column = (drawn[:, 1:] < self.entities).nonzero().unbind(1)
        column = column + 1
        whose = drawn[row, column]
        order = whose.argsort(dim=0, stable=True)
        many = torch.bincount(whose, minlength=self.entities)
        if bool((many == 0).any()):
            raise ConfigError(f"{pool} sequences do not lead to every one of {self.entities} entities; draw more")
        pick = (torch.rand(len(facts.entity), generator=draw) * many[facts.entity]).long()
        chosen = order[(many.cumsum(0) - many)[facts.entity] + pick]
        ids = torch.cat([drawn[row[chosen]], drawn.new_zeros(len(chosen), steps)], 1)
        at = column[chosen]
        for i in range(steps):
            ids[torch.arange(len(ids)), at + 1 + i] = self.token(facts.relations[:, i])
        return Prompts(ids, at + steps)


def joined(several: Sequence[Facts]) -> Facts:
    """Questions of several kinds, one after the other."""
    return Facts(*(torch.cat(parts) for parts in zip(*several, strict=True)))
