"""What is read inside, by hand and against plain arithmetic; and what the meter reads."""

import copy

import pytest
import torch

from perimetry.labs.nano import Nano
from perimetry.labs.points import recipe_of, train_on_points
from perimetry.labs.safety_finetuning.answers import attacked
from perimetry.labs.safety_finetuning.attachment import (
    MEANS,
    SEQUENCES,
    AttachConfig,
    States,
    TextMeter,
    attach,
    mixed,
    states_of,
)
from perimetry.labs.safety_finetuning.models import SafetyArm, pretrain
from perimetry.labs.safety_finetuning.probes import (
    Centres,
    Update,
    between,
    centres_of,
    inner,
    leading_share,
    outside,
    pull,
    separation,
    shuffled_separation,
    steepness,
    tau,
    update_of,
)
from perimetry.labs.safety_finetuning.world import ATTACKS, World, chunk_world
from perimetry.runtime import generator

ARM = SafetyArm(layers=2, width=32)


@pytest.fixture(scope="module")
def world() -> World:
    return chunk_world(0)


@pytest.fixture(scope="module")
def trained(world: World) -> Nano:
    return pretrain(ARM, world, 0, 60)


def first_matrix(model: Nano) -> torch.Tensor:
    weight = model.blocks[-1].get_submodule("up").weight
    assert isinstance(weight, torch.Tensor)
    return weight


def moved(model: Nano, left: torch.Tensor, right: torch.Tensor) -> Nano:
    """The model with something of rank 1 added to the first matrix of its last MLP."""
    found = copy.deepcopy(model)
    with torch.no_grad():
        first_matrix(found).add_(left[:, None] * right)
    return found


def test_a_side_is_a_difference_of_distances() -> None:
    centres = Centres(torch.tensor([0.0, 0.0]), torch.tensor([6.0, 0.0]))
    points = torch.tensor([[0.0, 0.0], [6.0, 0.0], [3.0, 9.0]])
    assert tau(points, centres).tolist() == [6.0, -6.0, 0.0]


def test_classes_that_stand_apart_are_apart_and_shuffled_labels_are_not() -> None:
    draw = generator(0)
    safe, unsafe = torch.randn(200, 8, generator=draw), torch.randn(200, 8, generator=draw)
    far = unsafe + 10 * torch.eye(8)[0]
    assert separation(safe, far) == pytest.approx(2 * (108**0.5 - 8**0.5), abs=0.8)
    assert abs(separation(safe, unsafe)) < 0.4
    assert separation(far, safe) > 0, "whichever class is called safe"
    assert abs(shuffled_separation(safe, far, 0)) < 0.3


def test_a_class_along_one_direction_has_all_its_variance_there() -> None:
    draw = generator(1)
    line = torch.randn(100, 1, generator=draw) * torch.tensor([3.0, 4.0, 0.0]) + 7
    assert leading_share(line) == pytest.approx(1.0)
    values = torch.randn(400, 5, generator=draw)
    assert leading_share(values) == pytest.approx(
        float(torch.linalg.eigvalsh(values.T.cov())[-1] / values.var(0).sum())
    )


def test_the_inside_is_what_the_mlp_computes(world: World, trained: Nano) -> None:
    prompts = world.draw("safe", 6, generator(2))
    found = inner(trained, prompts)
    with torch.no_grad():
        states = trained.read(prompts.ids, (0, 1)).residuals
        for block, own in zip(trained.blocks, found, strict=True):
            up = block.get_submodule("up")
            torch.testing.assert_close(torch.nn.functional.gelu(up(own.read)), own.hidden)
        last, own = trained.blocks[-1], found[-1]
        # What stands before the last MLP is what stands after it less what it writes.
        before = states[1][:, 11] - last.get_submodule("down")(own.hidden)
        torch.testing.assert_close(last.get_submodule("norm_2")(before), own.read, atol=1e-4, rtol=1e-4)
    assert all(not part._forward_pre_hooks for part in trained.modules()), "no hook stays behind"


def test_an_update_within_the_column_space_is_not_outside(trained: Nano) -> None:
    left = torch.linalg.svd(first_matrix(trained).detach().double())[0]
    right = torch.eye(32)[3]
    inside = update_of(trained, moved(trained, left[:, 0].float(), right)).left[:, :1]
    beyond = update_of(trained, moved(trained, left[:, -1].float(), right)).left[:, :1]
    (low,), rank = outside(inside, trained)
    (high,), _ = outside(beyond, trained)
    assert float(low) < 1e-2
    assert float(high) > 0.999
    assert 16 < rank <= 32
    drawn = torch.randn(128, 500, generator=generator(3))
    found = outside(drawn / drawn.norm(dim=0), trained)[0].mean()
    assert float(found) == pytest.approx((1 - rank / 128) ** 0.5, abs=0.01)


def test_the_first_direction_pulls_what_lies_along_it() -> None:
    update = Update(torch.eye(4, 2).double(), torch.tensor([3.0, 1.0]).double(), torch.eye(2, 5).double())
    read = torch.tensor([[2.0, 0.0, 0.0, 0.0, 0.0], [0.0, 5.0, 0.0, 0.0, 0.0], [-3.0, 0.0, 4.0, 0.0, 0.0]])
    assert pull(update, read).tolist() == pytest.approx([3.0, 0.0, 1.8])


def test_half_of_the_way_is_the_mean_of_both_ends(trained: Nano) -> None:
    other = moved(trained, torch.ones(128), torch.ones(32))
    half = between(trained, other, 0.5)
    for mine, one, two in zip(half.parameters(), trained.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, (one + two) / 2)


def test_steepness_is_how_fast_the_greatest_logit_moves(world: World, trained: Nano) -> None:
    prompts = world.draw("unsafe", 3, generator(4))
    found = steepness(trained, prompts)
    ids = prompts.ids[:, :12]
    with torch.no_grad():
        start = trained.embed(ids)

        def greatest(x: torch.Tensor) -> torch.Tensor:
            return trained.read(ids, embed=lambda _: x).logits[:, 11].amax(1)

        step = 1e-3
        slopes = []
        for place in range(12):
            for one in range(32):
                nudge = torch.zeros_like(start)
                nudge[:, place, one] = step
                slopes.append((greatest(start + nudge) - greatest(start - nudge)) / (2 * step))
    torch.testing.assert_close(found, torch.stack(slopes).norm(dim=0), rtol=0.02, atol=1e-3)


def test_states_are_those_of_text_and_end(world: World, trained: Nano) -> None:
    prompts = world.draw("CO-Text", 5, generator(5))
    found = states_of(trained, prompts)
    output = trained.read(prompts.ids, (1,))
    torch.testing.assert_close(found.acts.view(5, 9, 32), output.residuals[1][:, 3:12])
    torch.testing.assert_close(found.means(), output.residuals[1][:, 3:12].mean(1))
    logs = output.logits.log_softmax(-1)[:, :-1].gather(2, prompts.ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(found.nll, -logs[:, 2:11].mean(1))
    soft = states_of(trained, attacked(trained, prompts))
    torch.testing.assert_close(soft.acts.view(5, 9, 32)[:, :8], output.residuals[1][:, 3:11])
    assert not torch.allclose(soft.acts.view(5, 9, 32)[:, 8], output.residuals[1][:, 11])


def test_every_score_is_asked_of_every_attack(world: World, trained: Nano) -> None:
    draw = generator(6)
    attacks = {kind: world.draw(kind, 40, draw) for kind in ATTACKS}
    passed = {kind: torch.arange(40) < 12 for kind in attacks} | {"MisGen": torch.zeros(40, dtype=torch.bool)}
    hidden = {kind: inner(trained, world.draw(kind, 40, draw))[-1].hidden for kind in ("safe", "unsafe")}
    centres = centres_of(hidden["safe"], hidden["unsafe"])
    read = attach(trained, world, attacks, passed, centres, AttachConfig(120, 40, 48, 40), 0)
    found = {(m.metric, m.case): m.value for m in read}
    for kind in (*ATTACKS, "known again"):
        assert all((f"AUROC of {kind}", name) in found for name in (*SEQUENCES, *MEANS, "l0", "nll", "tau"))
    best = max(found["AUROC of CO-Text", name] for name in SEQUENCES)
    assert found["AUROC of CO-Text", "best of a whole prompt"] == best
    assert ("AUROC of CO-Text", "l0, success") in found
    assert ("AUROC of MisGen", "l0, success") not in found, "none passed"
    assert found["alarms on known again", "code_knn"] < 0.3


def test_strange_prompts_score_higher_by_every_whole_prompt(world: World, trained: Nano) -> None:
    reference = states_of(trained, mixed(world, 128, generator(7)))
    recipe = recipe_of("standard", width=48, k=10, steps=40, seed=0, lr=3e-3, sparsity=0.2)
    meter = TextMeter(train_on_points(reference.acts, recipe), reference)
    noise = torch.randn(reference.acts.shape, generator=generator(8)) * 3 * reference.acts.std()
    strange = States(reference.acts + noise, reference.prompt, reference.nll)
    usual, found = meter.scores(reference), meter.scores(strange)
    for name in (*MEANS, "code_knn", "code_mahalanobis", "recon_error", "norm"):
        assert float((found[name] > usual[name].median()).float().mean()) > 0.9, name


def test_mixed_prompts_are_half_safe(world: World) -> None:
    prompts = mixed(world, 20, generator(9))
    draw = generator(9)
    safe, unsafe = (world.draw(kind, 10, draw) for kind in ("safe", "unsafe"))
    assert torch.equal(prompts.ids, torch.cat([safe.ids, unsafe.ids]))
