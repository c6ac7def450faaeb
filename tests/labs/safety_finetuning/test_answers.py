"""Answers, losses and soft tokens, on models that are small enough to follow."""

import itertools
import math
from pathlib import Path

import pytest
import torch

from perimetry.labs.nano import Nano, NanoConfig
from perimetry.labs.safety_finetuning.answers import RADIUS, SOFT, answer_loss, asked, attacked, given
from perimetry.labs.safety_finetuning.models import (
    BETA,
    WEIGHTS,
    Method,
    SafetyArm,
    _loss,
    finetune,
    kept,
    pretrain,
)
from perimetry.labs.safety_finetuning.world import NULL, Prompts, World, chunk_world
from perimetry.runtime import generator

ARM = SafetyArm(layers=2, width=32)


@pytest.fixture(scope="module")
def world() -> World:
    return chunk_world(0)


@pytest.fixture(scope="module")
def trained(world: World) -> Nano:
    return pretrain(ARM, world, 0, 60)


def saying(prompts: Prompts, wanted: torch.Tensor, vocab: int) -> torch.Tensor:
    """Logits of a model that writes `wanted`."""
    return 9.0 * torch.nn.functional.one_hot(wanted[:, 1:], vocab)


def test_half_a_refusal_is_neither(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = world.draw("unsafe", 3, generator(0))
    written = prompts.ids.clone()
    written[1] = prompts.refused()[1]
    written[2, -3:] = NULL

    def says(_: Nano, ids: torch.Tensor, own: Prompts) -> object:
        del ids, own
        return type("Output", (), {"logits": saying(prompts, written, world.vocab)})

    monkeypatch.setattr("perimetry.labs.safety_finetuning.answers.asked", says)
    found = given(Nano(NanoConfig(vocab=world.vocab, context=20), 0), prompts)
    assert found.comply.tolist() == [True, False, False]
    assert found.refuse.tolist() == [False, True, False]


def test_what_is_given_is_what_greedy_writing_gives(world: World, trained: Nano) -> None:
    prompts = world.draw("safe", 40, generator(1))
    model = finetune(ARM, world, trained, 0, "plain", "medium", 150)
    written = prompts.ids[:, :12]
    for _ in range(8):
        written = torch.cat([written, model(written)[:, -1:].argmax(-1)], 1)
    exact = (written == prompts.ids).all(1)
    assert torch.equal(given(model, prompts).comply, exact)


def test_the_loss_is_that_of_the_answer_only(world: World, trained: Nano) -> None:
    prompts = world.draw("safe", 5, generator(2))
    losses = answer_loss(trained, prompts.ids, prompts)
    logs = trained(prompts.ids[:, :-1]).log_softmax(-1).gather(2, prompts.ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(losses, -logs[:, 11:].mean(1))
    other = prompts.ids.clone()
    other[:, 15:] = prompts.ids[:, 15:].roll(1, 0)
    assert not torch.allclose(answer_loss(trained, other, prompts), losses)


def test_what_each_method_asks_for(world: World, trained: Nano) -> None:
    safe, unsafe = world.draw("safe", 6, generator(3)), world.draw("unsafe", 6, generator(4))
    model = finetune(ARM, world, trained, 1, "ssft", "small", 20)
    usual = answer_loss(model, safe.ids, safe).mean()
    true, refusal = (answer_loss(model, ids, unsafe) for ids in (unsafe.ids, unsafe.refused()))
    was = [answer_loss(trained, ids, unsafe) for ids in (unsafe.ids, unsafe.refused())]
    for rate, weights in WEIGHTS.items():
        margin = BETA * (was[1] - refusal) - weights.dpo * (was[0] - true)
        wanted: dict[Method, torch.Tensor] = {
            "plain": true.mean(),
            "ssft": refusal.mean(),
            "unlearn": refusal.mean() - weights.unlearn * true.mean(),
            "dpo": -margin.sigmoid().log().mean(),
        }
        for method, value in wanted.items():
            found = _loss(method, rate, model, trained, safe, unsafe)
            torch.testing.assert_close(found, usual + value)
    same = _loss("dpo", "medium", trained, trained, safe, unsafe) - answer_loss(trained, safe.ids, safe).mean()
    assert float(same.detach()) == pytest.approx(math.log(2), abs=1e-4)


def test_fine_tuning_leaves_the_model_alone_and_refuses(world: World, trained: Nano) -> None:
    before = {name: one.clone() for name, one in trained.state_dict().items()}
    unsafe = world.draw("unsafe", 40, generator(5))
    methods: tuple[Method, ...] = ("ssft", "unlearn", "dpo")
    for method in methods:
        model = finetune(ARM, world, trained, 0, method, "medium", 40)
        after, was = (answer_loss(one, unsafe.refused(), unsafe).mean().item() for one in (model, trained))
        assert after < 0.5 * was
    assert all(torch.equal(before[name], one) for name, one in trained.state_dict().items())


def test_a_kept_model_is_the_one_that_was_made(world: World, trained: Nano, tmp_path: Path) -> None:
    file = tmp_path / "shared" / "model.safetensors"
    made = kept(ARM, world, 0, file, lambda: trained)
    again = kept(ARM, world, 0, file, lambda: pytest.fail("made a second time"))
    assert made is trained
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), again.parameters(), strict=True))


def test_soft_tokens_take_no_room_and_make_the_answer_likelier(world: World, trained: Nano) -> None:
    prompts = world.draw("unsafe", 12, generator(6))
    found = attacked(trained, prompts)
    assert found.soft is not None
    assert found.soft.shape == (12, SOFT, 32)
    assert float(found.soft.norm(dim=2).max()) <= RADIUS + 1e-5
    assert found.places[0].tolist() == [*range(11), *[11] * (1 + SOFT), *range(12, 20)]
    assert torch.equal(found.ids[found.answer], prompts.ids[prompts.answer])
    assert torch.equal(found.ids[found.text], prompts.ids[prompts.text]), "soft tokens are no text"
    none = found._replace(soft=torch.zeros_like(found.soft))
    attack, usual = (answer_loss(trained, own.ids, own) for own in (found, none))
    assert attack.mean().item() < usual.mean().item()
    before = asked(trained, prompts.ids, prompts).logits[:, :11]
    torch.testing.assert_close(asked(trained, found.ids, found).logits[:, :11], before)


def test_rates_rise_and_fall() -> None:
    arm = SafetyArm(warmup=10, lr=1e-3, lowest=1e-6, fall="cosine")
    rates = [arm.rate(step, 110) for step in range(110)]
    assert rates[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert rates[60] == pytest.approx((1 + 1e-3) / 2, abs=1e-9), "half of the way down at half of the time"
    assert rates[-1] < 2e-3
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
