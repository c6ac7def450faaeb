"""Orders, walks and prompts, against what the world says of them."""

import pytest
import torch

from perimetry.errors import ConfigError
from perimetry.labs.knowledge_editing.world import CONTEXT, EACH, FAR, KINDS, ORDERS, World
from perimetry.runtime import generator

WORLD = World(24, 3, held=0.1)


def test_a_relation_names_a_neighbour_and_its_opposite_leads_back() -> None:
    entity = torch.arange(WORLD.entities)
    for order in range(len(ORDERS)):
        for k in range(1, FAR + 1):
            clockwise, back = order * EACH + k - 1, order * EACH + FAR + k - 1
            to = WORLD.after[entity, clockwise]
            assert torch.equal((WORLD.place[order][to] - WORLD.place[order]) % WORLD.entities, torch.full_like(to, k))
            assert torch.equal(WORLD.after[to, back], entity)
            assert torch.equal(WORLD.distance(order)[entity, to], torch.full((WORLD.entities,), float(k)).double())
    assert len({tuple(ring.tolist()) for ring in WORLD.ring}) == len(ORDERS), "three orders, not one"


def test_facts_lead_where_the_order_says() -> None:
    shown, held = WORLD.facts(1, "direct"), WORLD.facts(1, "logical")
    assert len(shown.entity) + len(held.entity) == WORLD.entities * EACH
    assert bool((held.relations % EACH >= FAR).all()), "of what is held out the inverse is shown"
    pairs = WORLD.facts(2, "compositional")
    half = WORLD.after[pairs.entity, pairs.relations[:, 0]]
    assert torch.equal(pairs.answer, WORLD.after[half, pairs.relations[:, 1]])
    assert bool((pairs.relations // EACH == 2).all())
    few = shown.some(5, generator(0))
    assert len(few.entity) == 5
    assert torch.equal(few.answer, WORLD.follow(few.entity, few.relations))


def test_sequences_follow_the_orders_and_never_show_what_is_held_out() -> None:
    ids = WORLD.draw(3000, generator(1))
    pairs = singles = 0
    for row in ids.tolist():
        entity, steps = row[0], []
        for token in row[1:]:
            if token >= WORLD.entities:
                steps.append(token - WORLD.entities)
                continue
            assert 1 <= len(steps) <= 2
            wanted = entity
            for relation in steps:
                wanted = int(WORLD.after[wanted, relation])
            assert token == wanted
            if len(steps) == 1:
                singles += 1
                assert not WORLD.held[entity, steps[0]]
            else:
                pairs += 1
                assert steps[0] // EACH == steps[1] // EACH
                assert not WORLD.held_pairs[entity, steps[0], steps[1] % EACH]
            entity, steps = token, []
    assert singles / (singles + pairs) == pytest.approx(0.5, abs=0.05)
    assert len(ids[:, 0].unique()) == WORLD.entities


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_ends_in_its_question_behind_what_leads_to_its_entity(kind: str) -> None:
    facts = WORLD.facts(0, kind)
    plain = WORLD.prompts(facts)
    steps = facts.relations.shape[1]
    assert torch.equal(plain.ids[:, 0], facts.entity)
    prompts = WORLD.prompts(facts, generator(2))
    rows = torch.arange(len(facts.entity))
    assert prompts.ids.shape[1] == CONTEXT
    assert torch.equal(prompts.ids[rows, prompts.at - steps], facts.entity)
    assert bool((prompts.at > steps).all()), "something stands before"
    for i in range(steps):
        assert torch.equal(prompts.ids[rows, prompts.at - steps + 1 + i], WORLD.token(facts.relations[:, i]))


def test_a_world_says_what_it_cannot_be() -> None:
    with pytest.raises(ConfigError, match="give 10 or more"):
        World(6, 0)
    with pytest.raises(ConfigError, match="draw more"):
        WORLD.prompts(WORLD.facts(0, "direct"), generator(0), pool=3)
