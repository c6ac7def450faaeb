"""The step whose gradients never lie in memory, against the exact step followed by its update."""

import copy

import pytest
import torch
from tests.train.planted import D_MODEL, Planted, config

from perimetry.sae.steps import products
from perimetry.sae.steps.native import build
from perimetry.train import trainer as module
from perimetry.train.trainer import Trainer

pytestmark = pytest.mark.skipif(build.compiled() is None, reason="no C compiler here")


def pair(**changes: object) -> tuple[Trainer, Trainer]:
    made = Trainer(config(**changes), 0.05, torch.zeros(D_MODEL))
    return made, copy.deepcopy(made)


@pytest.fixture(autouse=True)
def _by_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "DENSE_ABOVE", 2.0)


@pytest.mark.parametrize("name", ["topk", "batchtopk", "jumprelu"])
@pytest.mark.parametrize(
    "changes", [{}, {"clip": 1e-3}, {"dead_after": 70}, {"unit_decoder": False}, {"subtract_b_dec": False}]
)
def test_many_steps_equal_those_in_two_parts(
    name: str, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, two = pair(architecture=name, **changes)
    one = Trainer(two.config, 0.05, torch.zeros(D_MODEL))
    two = Trainer(two.config, 0.05, torch.zeros(D_MODEL))
    aux = 0.0
    for step in range(12):
        batch = Planted().draw(64, step)
        taken = module.fused_step(
            copy.deepcopy(one).sae,
            torch.optim.Adam([torch.zeros(1)]),
            batch.clone,
            one.objective(),
            one.dead(),
            clip=1.0,
            unit_decoder=True,
        )
        assert taken is not None, "the fused step applies"
        found = one.advance(batch)
        with monkeypatch.context() as patched:
            patched.setattr(module, "fused_step", lambda *_, **__: None)
            wanted = two.advance(batch)
        aux += wanted.aux
        for key in ("reconstruction", "sparsity", "aux", "fvu", "l0", "smallest"):
            assert getattr(found, key) == pytest.approx(getattr(wanted, key), rel=1e-4, abs=1e-6), key
        assert torch.equal(found.fired, wanted.fired)
        for a, b in zip(one.sae.parameters(), two.sae.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    if "dead_after" in changes and name != "jumprelu":
        assert aux > 0, "the auxiliary loss took part"


def test_threads_change_no_bit() -> None:
    one, two = pair(architecture="topk")
    before = torch.get_num_threads()
    try:
        for made, threads in ((one, 1), (two, 2)):
            torch.set_num_threads(threads)
            made.advance(Planted().draw(64, 0))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one.sae.parameters(), two.sae.parameters(), strict=True))


def test_what_it_does_not_know_is_left_to_the_step_in_two_parts() -> None:
    def taken(made: Trainer) -> object:
        rows = Planted().draw(64, 0)
        before = copy.deepcopy(made.sae.state().tensors)
        found = module.fused_step(
            made.sae, made.optimizer, rows.clone, made.objective(), made.dead(), clip=1.0, unit_decoder=True
        )
        assert all(torch.equal(before[name], t) for name, t in made.sae.state().tensors.items())
        return found

    assert taken(pair(architecture="standard")[0]) is None, "the penalty has a gradient for the decoder"
    frozen = pair(architecture="topk")[0]
    frozen.sae.W_dec.requires_grad_(False)
    assert taken(frozen) is None
    double = pair(architecture="topk")[0]
    double.sae.double()
    assert taken(double) is None
