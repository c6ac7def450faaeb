"""Prompts and their answers, against the tables that made them."""

import itertools
import random

import pytest
import torch

from perimetry.labs.safety_finetuning.grammar import SAFE_NODES, TOP, Skeleton, grammar_world
from perimetry.labs.safety_finetuning.world import (
    BOS,
    COPIED,
    EOT,
    FIRST,
    NULL,
    PAD,
    WORKED,
    Prompts,
    World,
    chunk_world,
    joined,
)
from perimetry.runtime import generator


def parts_of(world: World, prompts: Prompts, row: int) -> tuple[list[int], list[int], list[int]]:
    """Tasks, text and answer of one prompt, by their numbers."""
    ids, eot = prompts.ids[row].tolist(), int(prompts.eot[row])
    assert (ids[0], ids[eot]) == (BOS, EOT)
    answer = [one - world.terminal for one in ids[eot + 1 :] if one != PAD]
    return [one - FIRST for one in ids[1:3]], [one - world.terminal for one in ids[3:eot]], answer


def functions_of(world: World, tokens: list[int]) -> list[int]:
    return [token if token < world.tasks else world.copies[token - world.tasks] for token in tokens]


def chunks_of(world: World, grammar: int, kind: str) -> set[tuple[int, ...]]:
    return {tuple(half) for row in world.texts[grammar, kind].ids.tolist() for half in (row[:4], row[4:])}


def test_pieces_stand_one_behind_another() -> None:
    one = (torch.tensor([[1, 2, 9], [3, 9, 9]]), torch.tensor([2, 1]))
    none = (torch.tensor([[8], [8]]), torch.tensor([0, 1]))
    assert joined([one, none, one]).tolist() == [[1, 2, 1, 2], [3, 8, 3, PAD]]


def test_no_chunk_belongs_to_two_families() -> None:
    world = chunk_world(0)
    families = [chunks_of(world, grammar, kind) for grammar in range(2) for kind in "SU"]
    assert [len(one) for one in families] == [6] * 4
    assert all(not a & b for a, b in itertools.combinations(families, 2))
    for grammar in range(2):
        safe, unsafe = (chunks_of(world, grammar, kind) for kind in "SU")
        for row in world.texts[grammar, "M"].ids.tolist():
            assert {tuple(row[:4]) in safe, tuple(row[4:]) in safe} == {True, False}
            assert {tuple(row[:4]), tuple(row[4:])} <= safe | unsafe
        assert [len(world.texts[grammar, kind].ids) for kind in "SUM"] == [36, 36, 72]


@pytest.mark.parametrize("kind", ["safe", "unsafe", "CO-Text", "CO-Task", "MisGen"])
def test_prompts_of_the_small_world_are_what_they_are_called(kind: str) -> None:
    world = chunk_world(1)
    prompts = world.draw(kind, 120, generator(0))
    unsafe_tasks = ({2, 3}, {0, 1})
    seen: set[tuple[str, int]] = set()
    for row in range(120):
        tokens, text, answer = parts_of(world, prompts, row)
        halves = [tuple(text[:4]), tuple(text[4:])]
        grammar = next(g for g in range(2) if halves[0] in chunks_of(world, g, "M"))
        sides = [half in chunks_of(world, grammar, "U") for half in halves]
        tasks = functions_of(world, tokens)
        bad = [task in unsafe_tasks[grammar] for task in tasks]
        assert answer[:4] == world.tables[grammar, tasks[0], text[:4]].tolist()
        assert answer[4:] == world.tables[grammar, tasks[1], text[4:]].tolist()
        if kind == "safe":
            assert (sides == [False, False] and len(set(bad)) == 1) or (sides == [True, True] and not any(bad))
        else:
            assert sides.count(True) == (1 if kind == "CO-Text" else 2)
            assert bad.count(True) == (1 if kind == "CO-Task" else 2)
        assert any(token >= world.tasks for token in tokens) == (kind == "MisGen")
        seen.add((str(sides), sum(bad)))
    assert len(seen) == {"safe": 3, "CO-Text": 2}.get(kind, 1), "every way to make one occurs"


def test_refusal_is_nulls_where_the_answer_stands() -> None:
    world = chunk_world(0)
    prompts = world.draw("unsafe", 7, generator(1))
    refused = prompts.refused()
    assert (refused[:, 12:] == NULL).all()
    assert torch.equal(refused[:, :12], prompts.ids[:, :12])
    assert prompts.text.nonzero()[:9, 1].tolist() == list(range(3, 12))


def test_duplicates_stand_for_their_tasks_in_their_share_of_pretraining() -> None:
    world = chunk_world(0)
    ids = world.pretraining(4000, generator(2), torch.tensor([0.0, 0.0, 0.0, 1.0]))
    tokens = (ids[:, 1:3] - FIRST).flatten()
    for number, task in enumerate(world.copies):
        own, copied = int((tokens == task).sum()), int((tokens == world.tasks + number).sum())
        assert copied / (own + copied) == pytest.approx(COPIED, abs=0.04)
        assert (own + copied) / len(tokens) == pytest.approx(1 / 4, abs=0.03)


def test_sequences_of_pretraining_are_of_four_kinds() -> None:
    world = grammar_world(0, 10, (15, 25), 2)
    lengths = {}
    for mode in range(4):
        ids = world.pretraining(30, generator(3), torch.eye(4)[mode])
        ends = (ids == EOT).sum(1)
        first = (ids == EOT).int().argmax(1)
        lengths[mode] = first, (ids != PAD).sum(1), ends
        assert (ids[:, 0] == (WORKED if mode == 1 else BOS)).all()
    tasks, outputs = (0, 2, 1, 2), (0, 2, 1, 1)
    for mode, (first, total, ends) in lengths.items():
        text = first - 1 - tasks[mode]
        assert ((text >= 15) & (text <= 25)).all()
        assert torch.equal(total, 1 + tasks[mode] + text + ends + outputs[mode] * text)
        assert (ends == (2 if mode == 1 else 1)).all()


def test_tasks_are_composed_in_the_published_world() -> None:
    world = grammar_world(2, 12, (15, 25), 2)
    assert torch.equal(world.tables.sort(2).values, torch.arange(30).expand(4, 10, 30)), "all are bijections"
    assert torch.equal(world.tables[:, -1], torch.arange(30).expand(4, 30))
    assert len({tuple(row) for row in world.tables[:, 0].tolist()}) == 4, "a task is another one in each grammar"
    for kind in world.kinds:
        prompts = world.draw(kind, 40, generator(4))
        for row in range(40):
            tokens, text, answer = parts_of(world, prompts, row)
            one, two = functions_of(world, tokens)
            found = [world.tables[g, two, world.tables[g, one, text]].tolist() for g in range(4)]
            assert answer in found
            unsafe = (one >= 8) + (two >= 8), (one < 8) + (two < 8)
            assert {"safe": 2 in unsafe, "unsafe": 2 in unsafe, "CO-Task": unsafe == (1, 1)}.get(kind, unsafe[1] == 2)


def test_texts_stand_under_the_nodes_that_their_kind_says() -> None:
    skeleton, source = Skeleton(0), random.Random(0)
    assert all(2 <= len(rules) <= 3 and all(2 <= len(r) <= 3 for r in rules) for rules in skeleton.rules.values())
    terminals, safe = skeleton.derive(0, "u", source)
    assert len(terminals) == len(safe) >= 2**5
    assert all(node in SAFE_NODES + "abc" for rules in list(TOP.values())[1:] for rule in rules for node in rule)
    # What a grammar writes under its own leaves, another one hardly writes.
    pools = [skeleton.texts(g, "S", 40, (15, 25), random.Random(1)) for g in range(2)]
    pairs = [{tuple(row[i : i + 2].tolist()) for row in pool.ids for i in range(14)} for pool in pools]
    assert len(pairs[0] & pairs[1]) < 0.6 * min(map(len, pairs))
    groups = [{t for rules in leaves.values() for rule in rules for t in rule} for leaves in skeleton.leaves]
    assert all(group <= set(range(30)) for group in groups)
