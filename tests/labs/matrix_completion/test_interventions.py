"""Interventions on a completer, each against what it must do."""

import torch

from perimetry.labs.matrix_completion.completer import Completer, CompletionArm
from perimetry.labs.matrix_completion.interventions import (
    _explained,
    intervened,
    probed,
    without_positions,
    without_selection,
)
from perimetry.runtime import generator

ARM = CompletionArm(width=16, layers=2, heads=2, rows=3, columns=4)


def test_a_head_without_queries_attends_evenly() -> None:
    model = Completer(ARM, 0).eval()
    made = without_selection(model, 1, 0)
    attention = made.blocks.layers[1].self_attn
    x = torch.randn(2, 12, 16, generator=generator(1))
    with torch.no_grad():
        weights = attention(x, x, x, average_attn_weights=False)[1]
        plain = model.blocks.layers[1].self_attn(x, x, x, average_attn_weights=False)[1]
    torch.testing.assert_close(weights[:, 0], torch.full((2, 12, 12), 1 / 12))
    torch.testing.assert_close(weights[:, 1], plain[:, 1])
    assert not torch.allclose(plain[:, 0], weights[:, 0], atol=1e-4)


def test_places_are_exchanged_and_the_model_itself_stays() -> None:
    model = Completer(ARM, 0)
    rows = model.row.detach().clone()
    made = without_positions(model, 3)
    assert torch.equal(model.row, rows)
    assert not torch.equal(made.row, rows)
    torch.testing.assert_close(made.row.sum(0), rows.sum(0))


def test_parts_of_an_earlier_step() -> None:
    model, before = Completer(ARM, 0).eval(), Completer(ARM, 1).eval()
    given = ARM.draw(40, generator(2))
    found = {m.case: m.value for m in intervened(model, before, given, 0)}
    assert len(found) == 3 + 2 * 2
    same = {m.case: m.value for m in intervened(model, model, given, 0)}
    assert found["without attention learned later"] != same["without attention learned later"]
    assert found["without MLPs learned later"] != same["without MLPs learned later"]
    assert found["block 0, head 1 even"] == same["block 0, head 1 even"]


def test_a_probe_reads_what_a_state_holds_and_nothing_else() -> None:
    draw = generator(3)
    x, weights = torch.randn(900, 6, generator=draw), torch.randn(6, generator=draw)
    told = x @ weights + 0.1 * torch.randn(900, generator=draw)
    assert _explained(x[:600], told[:600], x[600:], told[600:]) > 0.98
    free = torch.randn(900, generator=draw)
    assert _explained(x[:600], free[:600], x[600:], free[600:]) < 0.05
    found = probed(Completer(ARM, 0).eval(), ARM.draw(400, draw), 2)
    assert [m.case for m in found] == ["block 1", "block 2"]
    assert all(m.value < 0.3 for m in found), "a model that has learned nothing holds little of what it was not shown"
