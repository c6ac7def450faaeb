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


@pytest.mark.parametrize(
    "family",
    [
        {"architecture": "standard"},
        {"architecture": "gated"},
        {"architecture": "gated", "aux": 1 / 32, "dead_after": 70},
        {"architecture": "matryoshka"},
        {"architecture": "matryoshka", "dead_after": 70},
        {"architecture": "matryoshka", "options": {"fractions": [0.2, 0.05, 0.75], "weights": [0.5, 0.0, 2.0]}},
        {"architecture": "transcoder", "options": {"d_in": 20}},
        {"architecture": "transcoder", "options": {"gate": "batchtopk", "skip": True}, "dead_after": 70},
        {"architecture": "transcoder", "options": {"gate": "standard", "skip": True}},
        {"architecture": "transcoder", "options": {"gate": "jumprelu"}},
        {"architecture": "crosscoder"},
        {"architecture": "crosscoder", "options": {"gate": "topk"}, "dead_after": 70},
    ],
    ids=str,
)
@pytest.mark.parametrize("changes", [{}, {"clip": 1e-3, "unit_decoder": False}], ids=str)
def test_every_step_equals_the_one_in_two_parts_from_the_same_state(
    family: dict[str, object], changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Entries near a cut flip by rounding, and Adam makes much of tiny gradients: states are made equal after each step.
    made = config(**family, **changes)
    scale = [0.05] * len(made.row_parts(D_MODEL))
    one, two = Trainer(made, scale, torch.zeros(D_MODEL)), Trainer(made, scale, torch.zeros(D_MODEL))
    aux, taken, step_in_one = 0.0, [], module.fused_step

    def watched(*args: object, **options: object) -> object:
        taken.append(step_in_one(*args, **options))  # type: ignore[arg-type]
        return taken[-1]

    for step in range(6):
        batch = Planted().draw(64, step)
        with monkeypatch.context() as patched:
            patched.setattr(module, "fused_step", watched)
            found = one.advance(batch)
            patched.setattr(module, "fused_step", lambda *_, **__: None)
            wanted = two.advance(batch)
        aux += wanted.aux
        for key in ("reconstruction", "sparsity", "aux", "fvu", "l0", "smallest", "further"):
            assert getattr(found, key) == pytest.approx(getattr(wanted, key), rel=1e-4, abs=1e-6), key
        assert torch.equal(found.fired, wanted.fired)
        ours, theirs = one.state().tensors, two.state().tensors
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            if name.startswith("parameter."):
                assert (tensor - theirs[name]).abs().double().mean() < 1e-6, name
            else:
                largest = float(theirs[name].abs().max())
                torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=2e-6 * largest, msg=name)
        two.load(one.state())
    assert all(step is not None for step in taken), "the fused step applies"
    assert len(taken) == 6
    if "dead_after" in family:
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

    tanh = pair(architecture="jumprelu", options={"mode": "tanh"})[0]
    assert taken(tanh) is None, "an architecture with a pass of its own"
    sized = pair(architecture="crosscoder", options={"gate": "standard"})[0]
    assert taken(sized) is None, "the penalty has a gradient for the decoder that is no multiple of its rows"
    frozen = pair(architecture="topk")[0]
    frozen.sae.W_dec.requires_grad_(False)
    assert taken(frozen) is None
    double = pair(architecture="topk")[0]
    double.sae.double()
    assert taken(double) is None
