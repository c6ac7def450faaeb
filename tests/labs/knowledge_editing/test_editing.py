"""Editors and readings on a small model that knows its world a little."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from perimetry.editing.health import flag_of
from perimetry.editing.updates import drawn_like
from perimetry.labs.knowledge_editing.editors import EDITORS, Site, corrections, moments_of, requests
from perimetry.labs.knowledge_editing.measures import Reader, ReaderSizes, r_squared
from perimetry.labs.knowledge_editing.models import BaseConfig, Probe, edited, keys_at, louder, projection, train_base
from perimetry.labs.knowledge_editing.world import World
from perimetry.labs.nano import Nano
from perimetry.runtime import generator

SMALL = BaseConfig(entities=16, width=24, heads=2, batch=32, steps=1500)


@pytest.fixture(scope="module")
def world() -> World:
    return World(SMALL.entities, 0)


@pytest.fixture(scope="module")
def model(world: World) -> Nano:
    return train_base(SMALL, world, 0)


def _drawn(model: Nano, block: int, size: float = 1.0) -> Tensor:
    weight = projection(model, block).weight.double()
    return size * drawn_like(weight, 5)


def test_training_lowers_the_loss_and_a_seed_gives_the_same_model(world: World, model: Nano) -> None:
    ids = world.draw(200, generator(9))
    assert float(model.loss(ids)) < float(train_base(SMALL, world, 0, 1).loss(ids)) - 0.5
    one, two = train_base(SMALL, world, 0, 3), train_base(SMALL, world, 0, 3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("block", [0, 1])
def test_a_probe_gives_what_the_whole_edited_model_gives(world: World, model: Nano, block: int) -> None:
    prompts = world.prompts(world.facts(0, "direct"), generator(1))
    rows = torch.arange(len(prompts.ids))
    before = copy.deepcopy(model.state_dict())
    made = edited(model, {block: _drawn(model, block)})
    whole = Probe(model, block, prompts.ids)
    for own in (None, made):
        right = (own or model)(prompts.ids)
        torch.testing.assert_close(
            Probe(model, block, *prompts).logits(own), right[rows, prompts.at], atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(whole.logits(own), right, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()), "the model is as it was"
    assert not torch.equal(made.state_dict()[f"blocks.{block}.down.weight"], before[f"blocks.{block}.down.weight"])


def test_keys_are_what_the_matrix_reads(world: World, model: Nano) -> None:
    ids = world.draw(5, generator(2))
    block: Any = model.blocks[0]
    x = model.read(ids, (0,)).residuals[0]
    keys = keys_at(model, 0, ids, torch.full((5,), 4))
    before = x[:, 4] - projection(model, 0)(keys)
    torch.testing.assert_close(functional.gelu(block.up(block.norm_2(before))), keys, atol=1e-4, rtol=1e-4)
    assert torch.equal(keys_at(model, 0, ids).view(5, ids.shape[1], -1)[:, 4], keys)


@pytest.mark.parametrize("name", EDITORS)
def test_an_editor_makes_the_new_answer_likelier_and_drawn_updates_do_not(world: World, model: Nano, name: str) -> None:
    editor = EDITORS[name]
    moments = moments_of(model, world, editor.block, 300, generator(3))
    reader = Reader(model, world, editor.block, ReaderSizes(20, 2), 0)
    gains, drawn = [], []
    for number, request in enumerate(requests(world, 0, 1, generator(4))):
        site = Site(model, world, editor.block, request, generator(number))
        update = site.update(editor, moments)
        assert update.shape == projection(model, editor.block).weight.shape
        before = reader.read(model, request).success
        gains.append(reader.read(edited(model, {editor.block: update}), request).success - before)
        random = edited(model, {editor.block: drawn_like(update, number)})
        drawn.append(reader.read(random, request).success - before)
    assert sum(gains) / 4 > max(0.0, sum(drawn) / 4) + 0.05


def test_rome_gives_the_value_at_its_key(world: World, model: Nano) -> None:
    request = requests(world, 0, 1, generator(4))[0]
    site = Site(model, world, 1, request, generator(0))
    moments = moments_of(model, world, 1, 300, generator(3))
    for name, key in (("p-ROME", site.keys[0]), ("r-ROME", site.keys.mean(0))):
        made = edited(model, {1: site.update(EDITORS[name], moments)})
        given = projection(made, 1)(key.float())
        torch.testing.assert_close(given, site.value("layer"), atol=1e-3, rtol=1e-3)
    length = (site.value("block") - site.above).norm() / site.above.norm()
    assert 0 < float(length) <= 0.75 + 1e-5


def test_requests_are_as_far_as_they_say_and_corrections_are_right(world: World, model: Nano) -> None:
    asked = requests(world, 1, 3, generator(7))
    assert sorted(r.distance for r in asked) == sorted([1, 2, 3, 4] * 3)
    for r in asked:
        assert int(world.after[r.entity, r.relation]) == r.old
        assert float(world.distance(1)[r.old, r.new]) == r.distance
        assert r.new != r.entity
    wrong = corrections(world, model, 0, 3, generator(8))
    assert all(int(world.after[r.entity, r.relation]) == r.new for r in wrong)
    assert all(bool(world.held[r.entity, r.relation]) for r in wrong)


@pytest.mark.parametrize("block", [0, 1])
def test_nothing_changes_nothing_and_exchanged_names_change_shape_alone(world: World, model: Nano, block: int) -> None:
    reader = Reader(model, world, block, ReaderSizes(20, 2), 0)
    request = requests(world, 0, 1, generator(4))[0]
    same = reader.read(edited(model, {block: 0 * _drawn(model, block)}), request)
    assert {r.r for r in same.rings.values()} == {0.0}
    assert set(same.lost.values()) == {0.0}
    assert (same.siblings, same.cousins, same.nll) == (0.0, 0.0, 0.0)
    turned = reader.relabelled(0)
    assert turned.r > 0.1
    assert turned.scale == pytest.approx(1)
    assert turned.r == pytest.approx(turned.r_scaled)
    large = reader.read(edited(model, {block: _drawn(model, block, 3.0)}), request)
    small = reader.read(edited(model, {block: _drawn(model, block, 0.01)}), request)
    assert large.rings["I"].r > 10 * small.rings["I"].r > 0
    assert large.direct > small.direct


def test_a_louder_model_says_the_same_and_its_distances_keep_their_shape(world: World, model: Nano) -> None:
    before = copy.deepcopy(model.state_dict())
    loud = louder(model, 3.0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    ids = world.draw(20, generator(1))
    assert float((loud(ids) - model(ids)).abs().max()) < 1e-2
    one, other = (Reader(made, world, 1, ReaderSizes(20, 2), 0) for made in (model, loud))
    found = one.beside(other)
    assert found.scale == pytest.approx(3, rel=1e-3)
    assert found.r_scaled < 1e-3
    assert flag_of(found) == "norm blow-up"
    assert one.accuracies() == pytest.approx(other.accuracies(), abs=1e-3)


def test_readers_of_both_blocks_agree_on_the_model_before(world: World, model: Nano) -> None:
    one, two = (Reader(model, world, block, ReaderSizes(20, 2), 0) for block in (0, 1))
    assert one.accuracies() == pytest.approx(two.accuracies(), abs=1e-4)
    assert one.orders() == pytest.approx(two.orders(), abs=0.02)


def test_r_squared_against_hand() -> None:
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    y = torch.tensor([1.0, 3.0, 2.0, 5.0])
    assert r_squared(x, y) == pytest.approx(float(torch.corrcoef(torch.stack([x[:, 0], y]))[0, 1]) ** 2)
    assert r_squared(torch.cat([x, x], 1), y) == pytest.approx(r_squared(x, y)), "the same column twice adds nothing"
    assert r_squared(x, torch.ones(4)) == 0.0
