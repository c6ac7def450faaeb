"""What is read of an edited model: rings, accuracies, losses; every reading is against the model before the edit."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.editing.rings import Shattering, ring_distances, ring_order, shattering
from perimetry.labs.knowledge_editing.editors import Request
from perimetry.labs.knowledge_editing.models import Probe, text_loss
from perimetry.labs.knowledge_editing.world import EACH, FAR, KINDS, ORDERS, Facts, Prompts, World, joined
from perimetry.labs.nano import Nano
from perimetry.runtime import generator

__all__ = ["Reader", "ReaderSizes", "Reading", "r_squared"]

PREFIXES: Final = 5
LONGEST: Final = 10
"""Most tokens of a prompt with its prefix."""
SEQUENCES: Final = 32
"""Of the text whose loss is read."""
NEXT: Final = (0, FAR)
"""Relations of an order at which it is asked whether distances keep the order: to the neighbours on either side."""


class ReaderSizes(NamedTuple):
    """Sizes."""

    facts: int
    """Most facts of each order and kind."""
    prefixes: int = PREFIXES
    """Beginnings of sequences before each of them."""


class Reading(NamedTuple):
    """What an edit did."""

    rings: dict[str, Shattering]
    """Order -> distances at its relations, mean over these; `entity`: at the entity alone."""
    order: float
    """Rank correlation of distances with steps along the edited order, at the relations to either neighbour."""
    lost: dict[tuple[str, str], float]
    """Order and kind of fact -> chance of the right answer before less that after; what was edited is left out."""
    siblings: float
    """The same of direct facts of the edited relation, of other entities."""
    cousins: float
    """The same of direct facts of the edited entity, by other relations of the order."""
    success: float
    """Chance of the new answer."""
    nll: float
    """Next-token loss on ordinary sequences, after less before, in nats."""

    @property
    def direct(self) -> float:
        """Loss of all direct facts."""
        return sum(self.lost[name, "direct"] for name in ORDERS) / len(ORDERS)


class _Asked(NamedTuple):
    facts: Facts
    probe: Probe
    group: Tensor
    before: Tensor


@final
class Reader:
    """Prompts and texts of a world, computed up to the block that is edited."""

    def __init__(self, model: Nano, world: World, block: int, sizes: ReaderSizes, seed: int) -> None:
        """The same seed asks the same, whatever block is edited."""
        draw = generator(67_867_967 + seed)
        self.model, self.world, self.block = model, world, block
        entity = torch.arange(world.entities)
        relation = torch.arange(world.relations)
        rows = torch.stack([entity.repeat(world.relations), world.token(relation).repeat_interleave(world.entities)], 1)
        self.pairs = Probe(model, block, rows, torch.ones(len(rows), dtype=torch.long))
        self.alone = Probe(model, block, entity[:, None], torch.zeros_like(entity))
        self.distances = self._distances(None)
        self.cyclic = [world.distance(i) for i in range(len(ORDERS))]
        self.groups = [(i, kind) for i in range(len(ORDERS)) for kind in KINDS]
        self.asked = [self._ask(steps, sizes, draw) for steps in (1, 2)]
        self.text = world.draw(SEQUENCES, draw)
        self.texts = Probe(model, block, self.text)
        self.nll = text_loss(self.texts, None, self.text)
        self._fresh: dict[Request, Prompts] = {}

    def _ask(self, steps: int, sizes: ReaderSizes, draw: torch.Generator) -> _Asked:
        """Facts of one relation, or pairs; behind several prefixes each."""
        chosen = [
            (number, self.world.facts(order, kind).some(sizes.facts, draw))
            for number, (order, kind) in enumerate(self.groups)
            if (kind == "compositional") == (steps == 2)
        ]
        group = torch.cat([torch.full((len(facts.entity),), number) for number, facts in chosen])
        one = joined([facts for _, facts in chosen])
        facts, group = joined([one] * sizes.prefixes), group.repeat(sizes.prefixes)
        prompts = self.world.prompts(facts, draw, LONGEST)
        probe = Probe(self.model, self.block, prompts.ids, prompts.at)
        return _Asked(facts, probe, group, probe.chances(None, facts.answer, self.world.entities))

    def _distances(self, model: Nano | None) -> list[Tensor]:
        """At every relation, then at the entity alone."""
        states = self.pairs.states(model).unflatten(0, (self.world.relations, self.world.entities))
        return [ring_distances(own) for own in (*states, self.alone.states(model))]

    def accuracies(self) -> dict[tuple[str, str], float]:
        """Order and kind -> chance of the right answer before any edit."""
        found: dict[tuple[str, str], float] = {}
        for asked in self.asked:
            for number in asked.group.unique().tolist():
                order, kind = self.groups[number]
                found[ORDERS[order], kind] = float(asked.before[asked.group == number].double().mean())
        return found

    def orders(self) -> dict[str, float]:
        """How well distances keep each order, at its relations and at the entity alone, before any edit."""
        found = {name: _mean(self._order(self.distances, i)) for i, name in enumerate(ORDERS)}
        return found | {
            f"{name}, entity": ring_order(self.distances[-1], self.cyclic[i]) for i, name in enumerate(ORDERS)
        }

    def _order(self, distances: Sequence[Tensor], order: int) -> list[float]:
        return [ring_order(distances[order * EACH + i], self.cyclic[order]) for i in NEXT]

    def relabelled(self, seed: int) -> Shattering:
        """What rings show where entities have exchanged their names (control): as large as before, and another shape."""
        draw = generator(seed)
        turns = [torch.randperm(self.world.entities, generator=draw) for _ in range(EACH)]
        pairs = ((d, d[turn][:, turn]) for d, turn in zip(self.distances[:EACH], turns, strict=True))
        return _all([shattering(*both) for both in pairs])

    def beside(self, other: "Reader") -> Shattering:
        """What the rings of the first order show of another model, asked the same."""
        return _all([shattering(*both) for both in zip(self.distances[:EACH], other.distances[:EACH], strict=True)])

    def read(self, model: Nano, request: Request, order: int = 0) -> Reading:
        """Every reading of an edited copy of the model, for a request in an order."""
        after = self._distances(model)
        moved = [shattering(one, other) for one, other in zip(self.distances, after, strict=True)]
        rings = {name: _all(moved[i * EACH : (i + 1) * EACH]) for i, name in enumerate(ORDERS)}
        lost, siblings, cousins = self._lost(model, request, order)
        return Reading(
            rings | {"entity": moved[-1]},
            _mean(self._order(after, order)),
            lost,
            siblings,
            cousins,
            self._success(model, request),
            text_loss(self.texts, model, self.text) - self.nll,
        )

    def _lost(self, model: Nano, request: Request, order: int) -> tuple[dict[tuple[str, str], float], float, float]:
        found: dict[tuple[str, str], float] = {}
        near: list[float] = []
        for asked in self.asked:
            lost = (asked.before - asked.probe.chances(model, asked.facts.answer, self.world.entities)).double()
            same = asked.facts.relations[:, 0] == request.relation
            mine = asked.facts.entity == request.entity
            other = ~(same & mine) if asked.facts.relations.shape[1] == 1 else torch.ones_like(mine)
            for number in asked.group.unique().tolist():
                name, kind = self.groups[number]
                own = (asked.group == number) & other
                found[ORDERS[name], kind] = float(lost[own].mean())
                if name == order and kind == "direct":
                    near = [_part(lost, own & same), _part(lost, own & mine)]
        return found, near[0], near[1]

    def _success(self, model: Nano, request: Request) -> float:
        """On prefixes that no editor has seen."""
        if request not in self._fresh:
            draw = generator(request.entity * self.world.relations + request.relation)
            self._fresh[request] = self.world.prompts(request.fact(PREFIXES), draw)
        prompts = self._fresh[request]
        with torch.no_grad():
            scores = model(prompts.ids)[torch.arange(PREFIXES), prompts.at, : self.world.entities]
        return float(scores.softmax(1)[:, request.new].mean())


def _mean(values: Iterable[float]) -> float:
    several = list(values)
    return sum(several) / len(several)


def _part(lost: Float[Tensor, " prompt"], rows: Tensor) -> float:
    """0 where nobody was asked."""
    return float(lost[rows].mean()) if bool(rows.any()) else 0.0


def _all(several: Sequence[Shattering]) -> Shattering:
    """The mean over relations of each number."""
    return Shattering(*(_mean(values) for values in zip(*several, strict=True)))


def r_squared(columns: Float[Tensor, "edit column"], wanted: Float[Tensor, " edit"]) -> float:
    """Share of the variance of a number that a linear function of others explains; 0 where it does not vary.

    >>> round(r_squared(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2.0, 4.0, 6.0])), 6)
    1.0
    """
    exact, y = columns.double(), wanted.double()
    spread = exact.std(0, correction=0)
    x = torch.cat([torch.ones(len(y), 1, dtype=torch.float64), (exact - exact.mean(0)) / spread.clamp_min(1e-30)], 1)
    whole = float((y - y.mean()).square().sum())
    if whole == 0:
        return 0.0
    fit = torch.linalg.lstsq(x, y[:, None], driver="gelsd").solution[:, 0]
    return 1 - float((y - x @ fit).square().sum()) / whole
