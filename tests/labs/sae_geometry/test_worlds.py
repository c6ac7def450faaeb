"""The worlds of the geometry lab."""

import pytest
import torch

from perimetry.labs.sae_geometry.arms import CLUSTERS
from perimetry.labs.sae_geometry.fitting import Softened, cosine, fit
from perimetry.labs.sae_geometry.reviving import reviving_step
from perimetry.labs.sae_geometry.running import run_clusters
from perimetry.labs.sae_geometry.seen import geometry, recovery
from perimetry.labs.sae_geometry.worlds import EPSILONS, INNER, rotated, world_a, world_b, world_c
from perimetry.runtime import generator
from perimetry.sae.affine import Weights
from perimetry.sae.jumprelu import JumpReLUSAE
from perimetry.sae.steps.base import Objective
from perimetry.sae.steps.dispatch import exact_step
from perimetry.sae.topk import TopKSAE


def test_worlds_are_centred_and_scaled() -> None:
    for world in (world_a(), world_b(), world_b(128, (6, 14, 30, 62, 126), 0.046875)):
        points, _ = world.draw(20_000, generator(0))
        assert float(points.square().sum(1).mean()) == pytest.approx(points.shape[1], rel=0.03)
        assert float(points.mean(0).abs().max()) < 0.06


def test_surprisal_is_that_of_the_mixture_by_torch() -> None:
    world = world_b().without(0)
    points, _ = world.draw(50, generator(2))
    each = torch.distributions.Independent(torch.distributions.Normal(world.centres, world.deviations), 1)
    whole = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.ones(3)), each)
    torch.testing.assert_close(world.surprisal(points).float(), -whole.log_prob(points), rtol=1e-4, atol=1e-2)


def test_inner_clusters_lie_inside_the_hull() -> None:
    world = world_a()
    for inner in INNER:
        assert float(world.centres[inner].norm()) < 0.5 * float(world.centres[inner - 1].norm())


@pytest.mark.parametrize("similarity", sorted(EPSILONS))
def test_siblings_have_the_cosine_that_was_asked_for(similarity: float) -> None:
    tree = world_c(*EPSILONS[similarity], seed=0)
    for group in tree.siblings():
        rows = tree.directions[list(group)]
        cosines = (rows @ rows.T)[~torch.eye(len(rows), dtype=torch.bool)]
        assert float((cosines - similarity).abs().max()) < 0.02


def test_a_turned_support_keeps_centre_and_size() -> None:
    world = world_b()
    noise = torch.randn(4000, 32, generator=generator(1))
    straight = rotated(world, 2, 14, 0.0, noise)
    torch.testing.assert_close(straight, world.centres[2] + noise * world.deviations[2])
    turned = rotated(world, 2, 14, 90.0, noise) - world.centres[2]
    assert float(turned.square().sum()) == pytest.approx(float((straight - world.centres[2]).square().sum()), rel=1e-3)
    assert float(turned[:, :14].square().sum()) < 0.01 * float(turned[:, -14:].square().sum())


def test_the_truth_is_recovered_from_itself() -> None:
    tree = world_c(*EPSILONS[0.3], seed=2)
    found = recovery(tree.directions.flip(0), tree)
    assert float(found.matches.min()) == pytest.approx(1.0, abs=1e-5)
    assert abs(found.absorption) < 0.02
    assert found.siblings == pytest.approx(0, abs=1e-5)


def test_a_softmax_silences_nobody() -> None:
    found = geometry(Softened(16, 2, 0), world_a(), 600)
    assert float(found.l0.mean()) == pytest.approx(16, abs=0.5)
    assert cosine(0.0) > cosine(0.5) > cosine(1.0)


def test_thresholds_stay_above_zero() -> None:
    sae = fit("jumprelu", world_a().batches(0), width=16, d_model=2, gamma=0.1, k=1, steps=40, seed=0)
    assert isinstance(sae, JumpReLUSAE)
    assert float(sae.threshold.min()) > 0
    assert float((sae.threshold - 1e-3).abs().max()) > 1e-6, "it is trained"


def test_silent_latents_attempt_the_residual() -> None:
    """Without the auxiliary loss they would not move at all."""
    weights = Weights(
        torch.randn(6, 2, generator=generator(0)), torch.eye(2).repeat(3, 1), torch.zeros(6), torch.zeros(2)
    )
    weights.W_enc[3] = 1e-3
    sae = TopKSAE(weights, k=1)
    rows = torch.rand(32, 2, generator=generator(1)) + 1
    with torch.no_grad():
        sae.b_dec.copy_(torch.tensor([0.1, -0.2]))
        sae.b_enc.copy_(torch.linspace(-0.1, 0.1, 6))
    plain, fired = reviving_step(sae, rows, 1.0, torch.empty(0, dtype=torch.int64))
    exact = exact_step(sae, rows, Objective())
    assert torch.equal(fired, exact.fired)
    for name, value in exact.gradients.items():
        torch.testing.assert_close(plain[name], value, rtol=1e-4, atol=1e-6)
    both, _ = reviving_step(sae, rows, 1.0, torch.tensor([3]))
    gradients = {name: both[name] - plain[name] for name in plain}
    left = rows - sae(rows).reconstruction
    codes = ((rows - sae.b_dec) @ weights.W_enc[3]).relu()
    wanted = (codes[:, None] * 2 * (codes[:, None] * weights.W_dec[3] - left)).mean(0)
    torch.testing.assert_close(gradients["W_dec"][3], wanted.detach(), rtol=1e-4, atol=1e-7)
    assert not gradients["W_dec"][[0, 1, 2, 4, 5]].any()
    assert gradients["W_enc"][3].any()


def test_too_small_a_penalty_lets_clusters_share_latents() -> None:
    """A negative control on a short run: what SpaDE keeps apart, the same dictionary with a light penalty does not.

    The other one, that too heavy a penalty breaks it, shows only after thousands of steps: in the quick preset.
    """
    apart, light = (
        run_clusters(CLUSTERS[arm].model_copy(update={"turned": False}), 0, 0.05, 2000).value("co-activation")
        for arm in ("b_spade", "b_spade_light")
    )
    assert apart < 0.01
    assert light > 0.1
