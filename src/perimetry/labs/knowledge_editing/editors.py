"""The editors on the small model: which fact is to be changed, the value that says it, and what each editor adds."""

from typing import Final, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from perimetry.editing.updates import Keys, alphaedit, free_directions, memit, rome
from perimetry.editing.values import BLOCK_VALUE, LAYER_VALUE, Objective, Terms, find_value
from perimetry.labs.knowledge_editing.models import Probe, keys_at, projection
from perimetry.labs.knowledge_editing.world import FAR, Facts, Prompts, World
from perimetry.labs.nano import Nano

__all__ = ["EDITORS", "FEW", "Editor", "Moments", "Request", "Site", "corrections", "moments_of", "requests"]

PREFIXES: Final = 6
"""Beginnings of sequences before the prompt, beside none at all."""
FEW: Final = 1.25
"""Keys of a covariance that is not sound, for each of their dimensions: 240 for 192, which are 15 sequences."""
MEMIT_WEIGHT: Final = 1.0
ALPHA_RIDGE: Final = 0.1
"""The published 15,000 and 10 do nothing here: both depend on the scale of the keys."""
FREE_SHARE: Final = 0.02
"""Share of the trace of the covariance that AlphaEdit may change."""
Metric = Literal["text", "few", "none"]


class Request(NamedTuple):
    """A fact of one relation, and what is to be answered from now on."""

    entity: int
    """Whose neighbour."""
    relation: int
    """Which one, by number."""
    old: int
    """The right answer."""
    new: int
    """The wanted one."""
    distance: int
    """Steps between them along the order; 0 where a wrong answer of the model is put right."""

    def fact(self, copies: int = 1) -> Facts:
        """The question with the wanted answer, so many times."""
        one = (torch.full((copies,), n) for n in (self.entity, self.relation, self.new))
        entity, relation, new = one
        return Facts(entity, relation[:, None], new)


class Editor(NamedTuple):
    """How an update is made."""

    method: Keys | Literal["memit", "alphaedit"]
    """`mixed`, `mean`, `plain`: ROME, r-ROME, p-ROME."""
    block: int = 1
    """Where; the key is the relation in the last block, where nothing earlier can matter, and the entity before that."""
    metric: Metric = "text"
    """Covariance of the keys: of ordinary sequences, of a few keys of them, or none."""


EDITORS: Final = {
    "ROME": Editor("mixed"),
    "r-ROME": Editor("mean"),
    "p-ROME": Editor("plain"),
    "MEMIT": Editor("memit"),
    "AlphaEdit": Editor("alphaedit"),
    "ROME, C = I": Editor("mixed", metric="none"),
    "ROME, C of few keys": Editor("mixed", metric="few"),
    "ROME, first block": Editor("mixed", 0),
    "r-ROME, first block": Editor("mean", 0),
}
"""Every editor by its name."""


class Moments(NamedTuple):
    """Mean of k k' over keys of ordinary sequences, not centred."""

    text: Float[Tensor, "key key"]
    """Of all of them."""
    few: Float[Tensor, "key key"]
    """Of so few that it has an inverse and not more."""
    none: Float[Tensor, "key key"]
    """The identity, for editors that know of no keys."""


def moments_of(model: Nano, world: World, block: int, sequences: int, draw: torch.Generator) -> Moments:
    """Covariances of the keys of a block."""
    keys = keys_at(model, block, world.draw(sequences, draw)).double()
    few = keys[: round(FEW * keys.shape[1])]
    return Moments(keys.T @ keys / len(keys), few.T @ few / len(few), torch.eye(keys.shape[1], dtype=torch.float64))


def requests(world: World, order: int, each: int, draw: torch.Generator) -> list[Request]:
    """Facts of an order that were shown, `each` for every distance from the old answer to the new one."""
    facts = world.facts(order, "direct").some(FAR * each, draw)
    ways = torch.randint(0, 2, (FAR * each,), generator=draw) * 2 - 1
    found: list[Request] = []
    for i, (entity, relation, old) in enumerate(
        zip(facts.entity.tolist(), facts.relations[:, 0].tolist(), facts.answer.tolist(), strict=True)
    ):
        distance, place = 1 + i % FAR, int(world.place[order, old])
        ring = world.ring[order]
        to = [int(ring[(place + way * distance) % world.entities]) for way in (int(ways[i]), -int(ways[i]))]
        found.append(Request(entity, relation, old, to[0] if to[0] != entity else to[1], distance))
    return found


def corrections(world: World, model: Nano, order: int, most: int, draw: torch.Generator) -> list[Request]:
    """Facts that were never shown and are answered wrongly, to be put right."""
    facts = world.facts(order, "logical")
    prompts = world.prompts(facts)
    with torch.no_grad():
        said = model(prompts.ids)[:, -1, : world.entities].argmax(1)
    wrong = (said != facts.answer).nonzero()[:, 0]
    chosen = wrong[torch.randperm(len(wrong), generator=draw)[:most]].tolist()
    rows = ((int(facts.entity[i]), int(facts.relations[i, 0]), int(facts.answer[i])) for i in chosen)
    return [Request(entity, relation, right, right, 0) for entity, relation, right in rows]


class Site:
    """A request at a block: its keys, and the values that say the new answer, found once for all editors there."""

    def __init__(self, model: Nano, world: World, block: int, request: Request, draw: torch.Generator) -> None:
        """Prefixes are drawn with `draw`."""
        last = block == len(model.blocks) - 1
        rows = _rows(world, request, draw)
        self.model, self.block, self.request, self.world = model, block, request, world
        self.at, self.key = rows.at, rows.at if last else rows.at - 1
        self.probe = Probe(model, block, rows.ids)
        which = torch.arange(len(rows.ids))
        self.keys = self.probe.keys[which, self.key].double()
        self.place = projection(model, block)
        self.start = self.place(self.probe.keys[0, self.key[0]])
        self.above = self.start + self.probe.rest[0, self.key[0]]
        self.neutral = None if last else Probe(model, block, torch.tensor([[request.entity]]))
        self._values: dict[str, Tensor] = {}

    def update(self, editor: Editor, moments: Moments) -> Float[Tensor, "value key"]:
        """What an editor adds to the matrix of this block."""
        metric: Tensor = getattr(moments, editor.metric)
        plain, mean = self.keys[0], self.keys.mean(0)
        weight = self.place.weight.double()
        if editor.method not in ("memit", "alphaedit"):
            value = self.value("layer").double() - self.place.bias.double()
            return rome(weight, value, plain, mean, metric, editor.method)
        missing = (self.value("block") - self.above).double()[:, None]
        if editor.method == "memit":
            return memit(mean[:, None], missing, metric, MEMIT_WEIGHT)
        return alphaedit(mean[:, None], missing, free_directions(metric, FREE_SHARE), ridge=ALPHA_RIDGE)

    def value(self, kind: Literal["layer", "block"]) -> Float[Tensor, " value"]:
        """The output of the MLP (ROME) or of the block (MEMIT, AlphaEdit) under which the new answer is given."""
        if kind not in self._values:
            start, config = (self.start, LAYER_VALUE) if kind == "layer" else (self.above, BLOCK_VALUE)
            self._values[kind] = find_value(start, self._objective(), config)
        return self._values[kind]

    def _objective(self) -> Objective:
        """Minus the log-probability of the new answer among entities, mean over prefixes, and KL where the entity stands alone.

        In the last block nothing that follows the relation can see it, so that there the second term is 0.
        """
        which = torch.arange(len(self.at))
        x = self.probe.rest + self.place(self.probe.keys)
        alone = None if self.neutral is None else self.neutral.rest + self.place(self.neutral.keys)
        before = None if alone is None else _logs(self.model, self.block, alone)[0, 0]

        def objective(delta: Float[Tensor, " value"]) -> Terms:
            moved = x.index_put((which, self.key), x[which, self.key] + delta)
            scores = _scores(self.model, self.block, moved)[which, self.at]
            nll = functional.cross_entropy(
                scores[:, : self.world.entities], torch.full((len(self.at),), self.request.new)
            )
            if alone is None or before is None:
                return Terms(nll, 0 * nll)
            after = _logs(self.model, self.block, alone + delta)[0, 0]
            return Terms(nll, (before.exp() * (before - after)).sum())

        return objective


def _rows(world: World, request: Request, draw: torch.Generator) -> Prompts:
    """The prompt alone, then behind each prefix."""
    behind = world.prompts(request.fact(PREFIXES), draw)
    plain = behind.ids.new_zeros(1, behind.ids.shape[1])
    plain[0, :2] = torch.tensor([request.entity, int(world.token(torch.tensor(request.relation)))])
    at = torch.cat([torch.tensor([1]), behind.at])
    return Prompts(torch.cat([plain, behind.ids])[:, : int(at.max()) + 1], at)


def _scores(model: Nano, block: int, x: Tensor) -> Tensor:
    for later in model.blocks[block + 1 :]:
        x = later(x, None)
    return model.unembed(model.norm(x))


def _logs(model: Nano, block: int, x: Tensor) -> Tensor:
    return _scores(model, block, x).log_softmax(-1)
