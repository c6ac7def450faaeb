"""The meter on the model as it was before an edit: what its scores say of states that edited weights make, and of inputs that are new."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, final

import torch
from jaxtyping import Int
from torch import Tensor

from perimetry.labs.base import Measured
from perimetry.labs.knowledge_editing.editors import Request
from perimetry.labs.knowledge_editing.models import Probe
from perimetry.labs.knowledge_editing.world import EACH, KINDS, Facts, Prompts, World
from perimetry.labs.nano import Nano
from perimetry.labs.points import BASELINES, CONCEPTS, PointMeter, aurocs, evidence_of, recipe_of, train_on_points
from perimetry.measures.reconstruction import fvu
from perimetry.runtime import generator

__all__ = ["LABELS", "SCORES", "Attached", "MeterSizes"]

SCORES: Final = (*CONCEPTS, *BASELINES)
LABELS: Final = ("edited fact", "same relation", "same order", "other order")
"""How far a prompt is from what was edited."""
ACTIVE: Final = 8
MANY: Final = 400
Scores = dict[str, Tensor]


class MeterSizes(NamedTuple):
    """Sizes."""

    sequences: int
    """Sequences that dictionary and scores are fitted on."""
    steps: int
    """Training steps of the dictionary, of 512 tokens."""
    latents: int
    """Latents of it."""
    prompts: int
    """Prompts of each label that are read under each edit."""


@final
class Attached:
    """Dictionary and scores of one block, fitted on ordinary sequences through the unedited model."""

    def __init__(self, model: Nano, world: World, block: int, sizes: MeterSizes, seed: int) -> None:
        draw = generator(122_949_823 + seed)
        self.model, self.world, self.block, self.prompts = model, world, block, sizes.prompts
        states = self.states(world.draw(sizes.sequences, draw))
        recipe = recipe_of("batchtopk", width=sizes.latents, k=ACTIVE, steps=sizes.steps, seed=seed, lr=2e-3)
        made = train_on_points(states, recipe)
        self.meter = PointMeter(made, states, SCORES)
        inputs = made.inputs(states)
        evidence = evidence_of(made.sae, inputs)
        self.facts = [
            Measured("active latents", float(evidence.codes.count().double().mean()), f"block {block + 1}"),
            Measured("unexplained", fvu(inputs, evidence.reconstruction), f"block {block + 1}"),
        ]
        self.kinds = self._kinds(draw)

    @torch.no_grad()
    def states(self, ids: Tensor) -> Tensor:
        """Output of the block at every token but the first."""
        parts = [self.model.read(some, (self.block,)).residuals[self.block] for some in ids.split(1024)]
        return torch.cat(parts)[:, 1:].flatten(0, 1)

    def means(self, states: Tensor) -> dict[str, float]:
        """Mean of each score over the tokens of a text."""
        return {name: float(values.double().mean()) for name, values in self.meter.scores(states).items()}

    def _asked(self, rows: Int[Tensor, "row n"]) -> Facts:
        """Rows of `held` or of `held_pairs` as questions."""
        entity, steps = rows[:, 0], rows[:, 1:2]
        if rows.shape[1] == 3:
            steps = torch.cat([steps, steps // EACH * EACH + rows[:, 2:]], 1)
        return Facts(entity, steps, self.world.follow(entity, steps))

    def _seen(self, steps: int, draw: torch.Generator) -> Facts:
        """Facts or pairs of relations that were trained on."""
        rows = (~(self.world.held if steps == 1 else self.world.held_pairs)).nonzero()
        return self._asked(rows[torch.randint(0, len(rows), (MANY,), generator=draw)])

    def _kinds(self, draw: torch.Generator) -> dict[str, tuple[Prompts, Prompts]]:
        """Kind -> prompts as in training, prompts of that kind; both end in as many relations."""
        world = self.world
        one, two = ([self._seen(steps, draw) for _ in range(2)] for steps in (1, 2))
        usual = [world.prompts(facts[0], draw) for facts in (one, two)]
        held = world.held_pairs.nonzero()
        new = self._asked(held[torch.randperm(len(held), generator=draw)[:MANY]])
        found = {
            "seen again": (usual[1], world.prompts(two[1], draw)),
            "unseen pair of relations": (usual[1], self._right(new, draw)),
            "three relations": (usual[1], self._three(two[1], draw)),
            "unseen entity": (usual[0], self._unseen(one[1], draw)),
        }
        return {name: both for name, both in found.items() if len(both[1].ids) > 1}

    def _right(self, facts: Facts, draw: torch.Generator) -> Prompts:
        """Those that the model answers rightly: it generalises there."""
        prompts = self.world.prompts(facts, draw)
        with torch.no_grad():
            said = self.model(prompts.ids)[torch.arange(len(prompts.ids)), prompts.at, : self.world.entities].argmax(1)
        right = said == facts.answer
        return Prompts(prompts.ids[right], prompts.at[right])

    def _three(self, facts: Facts, draw: torch.Generator) -> Prompts:
        """A third relation behind two: no sequence has that."""
        more = torch.randint(0, EACH, (len(facts.entity), 1), generator=draw)
        steps = torch.cat([facts.relations, facts.relations[:, :1] // EACH * EACH + more], 1)
        return self.world.prompts(facts._replace(relations=steps), draw)

    def _unseen(self, facts: Facts, draw: torch.Generator) -> Prompts:
        """A token that no sequence has stands for the entity."""
        prompts = self.world.prompts(facts, draw)
        ids = prompts.ids.clone()
        ids[torch.arange(len(ids)), prompts.at - 1] = self.world.vocab
        return prompts._replace(ids=ids)

    @torch.no_grad()
    def _scores(self, prompts: Prompts) -> Scores:
        rows = torch.arange(len(prompts.ids))
        read = self.model.read(prompts.ids, (self.block,))
        logs = read.logits.log_softmax(-1)[:, :-1].gather(2, prompts.ids[:, 1:, None])[..., 0]
        # Of the prompt itself, as a user of likelihoods would who does not know the answer.
        before = torch.arange(logs.shape[1]) < prompts.at[:, None]
        nll = -(logs * before).sum(1) / prompts.at
        return self.meter.scores(read.residuals[self.block][rows, prompts.at]) | {"nll": nll}

    def on_inputs(self) -> list[Measured]:
        """AUROC of each score: what generalises, what is invalid, and what was seen (control)."""
        found: list[Measured] = []
        for kind, (usual, other) in self.kinds.items():
            rows = aurocs(f"AUROC of {kind}", self._scores(usual), self._scores(other))
            found += [m._replace(case=f"{m.case}, block {self.block + 1}") for m in rows]
        return found

    def labelled(self, request: Request, order: int, draw: torch.Generator) -> "Labelled":
        """Prompts near the edited fact and far from it."""
        world, facts = self.world, {}
        direct = [world.facts(i, KINDS[0]) for i in range(len(world.ring))]
        own, count = direct[order], self.prompts
        same = own.relations[:, 0] == request.relation
        mine = own.entity == request.entity
        facts["edited fact"] = request.fact(count)._replace(answer=torch.full((count,), request.old))
        facts["same relation"] = own.at(same & ~mine).some(count, draw)
        facts["same order"] = own.at(~same & ~mine).some(count, draw)
        facts["other order"] = direct[(order + 1) % len(direct)].some(count, draw)
        assert tuple(facts) == LABELS
        prompts = {label: world.prompts(own, draw) for label, own in facts.items()}
        return Labelled(prompts, {label: own.answer for label, own in facts.items()})


class Labelled(NamedTuple):
    """Prompts by how far they are from what was edited."""

    prompts: Mapping[str, Prompts]
    """Prompts of each label."""
    right: Mapping[str, Tensor]
    """Their answers before the edit."""

    def scores(self, at: Attached, block: int, copies: Sequence[Nano | None]) -> list[dict[str, Scores]]:
        """Each score of each label under each edited copy (None: the model itself); the likelihood is that of the right answer."""
        counts = [len(own.ids) for own in self.prompts.values()]
        ids, places = (torch.cat(parts) for parts in zip(*self.prompts.values(), strict=True))
        probe, right = Probe(at.model, block, ids, places), torch.cat(list(self.right.values()))
        found: list[dict[str, Scores]] = []
        for copy in copies:
            logs = probe.logits(copy).log_softmax(-1).gather(1, right[:, None])[:, 0]
            parts = {
                name: own.split(counts) for name, own in (at.meter.scores(probe.states(copy)) | {"nll": -logs}).items()
            }
            found.append({label: {name: own[i] for name, own in parts.items()} for i, label in enumerate(self.prompts)})
        return found
