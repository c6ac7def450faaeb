"""Discs, denoisers and the theory of two concepts, against what is known of them."""

import pytest
import torch

from perimetry.labs.concept_space.attachment import AttachConfig, attach
from perimetry.labs.concept_space.denoiser import MIDDLE, Denoiser, judge_of, train_denoiser, training_set
from perimetry.labs.concept_space.images import COLOUR, PIXELS, SIDE, World, pushed, rendered, turned
from perimetry.labs.concept_space.running import _Look, _numbers, _strictly
from perimetry.labs.concept_space.theory import Learning, learn
from perimetry.runtime import generator


def test_an_image_shows_its_condition() -> None:
    condition = torch.tensor([[0.9, 0.2, 0.1, 0.5, 0.0, 0.0, 0.15]])
    image = rendered(condition).view(3, SIDE, SIDE)
    torch.testing.assert_close(image[:, SIDE // 2, SIDE // 2], torch.tensor([0.9, 0.2, 0.1]), atol=0.01, rtol=0)
    torch.testing.assert_close(image[:, 0, 0], torch.full((3,), 0.15), atol=5e-3, rtol=0)
    moved = rendered(torch.tensor([[0.9, 0.2, 0.1, 0.3, 0.5, -0.5, 0.0]])).view(3, SIDE, SIDE)[0]
    row, column = divmod(int(moved.argmax()), SIDE)
    assert row < SIDE // 2 < column


def test_classes_differ_by_their_signal_and_the_last_is_never_trained_on() -> None:
    world = World(0.5)
    red, blue = (world.conditions(name, 4000, generator(0)) for name in ("00", "10"))
    torch.testing.assert_close((red - blue)[:, COLOUR].mean(0), torch.tensor([0.5, 0.0, -0.5]), atol=0.01, rtol=0)
    big, small = (world.conditions(name, 4000, generator(1))[:, 3] for name in ("00", "01"))
    assert float(big.mean() - small.mean()) == pytest.approx(0.4, abs=0.02)
    assert float(small.min()) >= 0.1
    data = training_set(world, 50, 0)
    is_blue, is_small = data.conditions[:, 2] > 0.5, data.conditions[:, 3] < 0.45
    assert len(data.images) == 150
    assert (int(is_blue.sum()), int(is_small.sum()), int((is_blue & is_small).sum())) == (50, 50, 0)
    torch.testing.assert_close(data.images, rendered(data.conditions))
    lost = training_set(world, 50, 0, shuffled=True)
    assert not torch.equal(lost.conditions, data.conditions)
    torch.testing.assert_close(lost.conditions.sort(0).values, data.conditions.sort(0).values)


def test_a_drawn_direction_is_as_far_as_a_push() -> None:
    plain = World(0.3).conditions("11", 20, generator(2))
    far, other = pushed(plain, 2.0), turned(plain, 2.0, generator(3))
    torch.testing.assert_close(far[:, COLOUR] - 0.5, 2 * (plain[:, COLOUR] - 0.5))
    assert torch.equal(far[:, 3:], plain[:, 3:])
    torch.testing.assert_close((far - plain).norm(dim=1), (other - plain).norm(dim=1))


def test_without_noise_a_denoiser_says_what_it_was_given() -> None:
    model = Denoiser(0)
    data = World(0.5).draw("00", 4, generator(4))
    with torch.no_grad():
        clean = data.images - MIDDLE
        torch.testing.assert_close(model(clean, torch.full((4,), 1e-4), data.conditions), clean, atol=1e-3, rtol=0)
    noise = torch.randn(4, PIXELS, generator=generator(5))
    one, two = (model.sample(data.conditions, noise) for _ in range(2))
    assert torch.equal(one, two)
    other = World(0.5).conditions("10", 4, generator(6))
    assert not torch.allclose(model.sample(other, noise), one)


def test_training_lowers_the_loss_and_the_classifier_learns() -> None:
    world = World(0.8)
    data = training_set(world, 64, 0)
    sigma, noise = torch.full((192,), 0.5), torch.randn(192, PIXELS, generator=generator(7))
    losses = {}
    for step, model in train_denoiser(data, 0, 40, 20):
        with torch.no_grad():
            losses[step] = float(model.losses(data.images, data.conditions, sigma, noise).mean())
    assert list(losses) == [0, 20, 40]
    assert losses[40] < 0.7 * losses[0]
    judge, accuracy = judge_of(world, 0, 150)
    assert accuracy > 0.95
    assert float(judge(world.draw("11", 50, generator(8)).images).mean()) > 0.8


def test_concepts_of_one_strength_are_learned_together_and_the_weak_one_later() -> None:
    alike = learn("linear", 1.0, 0, 400)
    assert abs(alike.time("strong") - alike.time("weak")) <= 20
    apart = learn("linear", 0.5, 0, 400)
    assert apart.time("strong") == pytest.approx(alike.time("strong"), abs=60)
    assert apart.time("weak") == 2 * 400, "not learned: twice the last step"


def test_times_and_bends_by_hand() -> None:
    path = Learning([0.0, 10.0, 20.0, 30.0], [0.0, 0.9, 0.9, 1.0], [0.0, 0.1, 0.5, 0.85])
    assert (path.time("strong"), path.time("weak"), path.bend()) == (10.0, 30.0, 1)
    looks = [
        _Look(step, torch.tensor([blue, small]), {2.0: push, 1.5: 0.0, 3.0: 0.0}, 0.0)
        for step, blue, small, push in (
            (0, 0.9, 0.9, 0.9),
            (10, 0.1, 0.9, 0.95),
            (20, 0.95, 0.4, 0.9),
            (30, 0.95, 0.95, 0.9),
            (40, 0.95, 0.95, 0.9),
        )
    ]
    found = {(m.metric, m.case): m.value for m in _numbers(looks)}
    assert found["step of colour", ""] == 20
    assert found["step of size", ""] == 10, "untrained looks say nothing"
    assert found["step of colour, strictly", ""] == 20
    assert _strictly(looks[:3], 0) == 2 * 20
    assert found["looks bent to small red", ""] == found["looks bent to big blue", ""] == 1
    assert found["looks at which a pushed prompt shows what a plain one does not", ""] == 1
    assert found["largest gain of a pushed prompt", "2"] == pytest.approx(0.85)


def test_every_score_is_asked_of_every_kind() -> None:
    read = attach(Denoiser(0), World(0.5), AttachConfig(200, 60, 32, 20), 0)
    kinds = {m.metric for m in read if m.metric.startswith("AUROC")}
    assert kinds == {f"AUROC of {k}" for k in ("known again", "11", "green", "pushed 10", "pushed 11")}
    again = {m.case: m.value for m in read if m.metric == "AUROC of known again"}
    assert all(0.3 < value < 0.7 for value in again.values())
    raw = {m.metric: m.value for m in read if m.case == "raw mahalanobis"}
    assert raw["AUROC of green"] > 0.95, "green is far in the conditions themselves"
    few = attach(Denoiser(0), World(0.5), AttachConfig(200, 60, 32, 20), 0, whole=False)
    assert {m.metric for m in few if m.metric.startswith("AUROC")} == {"AUROC of 11"}
