"""The networks, and how a rebound is counted."""

import pytest
import torch

from perimetry.labs.swing_by.networks import NetworkArm, make_network, rebound, train_network
from perimetry.labs.swing_by.world import WIDE


def test_a_rebound_in_the_tail_is_noise() -> None:
    assert rebound([4.0, 2.0, 3.0, 1.0]) == 1.5
    assert rebound([4.0, 0.1, 3.0]) == 1.0, "the minimum lies below a twentieth of the first loss"
    assert rebound([4.0, 3.0, 2.0]) == 1.0


def test_the_first_weights_are_the_usual_ones_times_the_factor() -> None:
    plain, small = (make_network(NetworkArm(layers=2, factor=f), WIDE, 0) for f in (1.0, 0.5))
    for one, other in zip(plain.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(0.5 * one, other)
    assert float(plain[0].weight.abs().max()) <= WIDE**-0.5


@pytest.mark.parametrize("loss", ["sum", "mean"])
def test_it_learns_and_is_watched_at_every_step(loss: str) -> None:
    arm = NetworkArm(layers=1, lr=0.02 if loss == "sum" else 0.6, steps=300, loss=loss)  # type: ignore[arg-type]
    world = arm.world(0)
    points, _ = world.train([300] * 3, 0)
    net = make_network(arm, WIDE, 0)
    seen = train_network(net, points, world, steps=300, lr=arm.lr, batch=128, seed=0, loss=arm.loss)
    assert len(seen.loss) == len(seen.along) == 301
    assert len(seen.train) == 4
    assert seen.train[-1] < 0.2 * seen.train[0]
    last = 0.5 * (seen.outputs[-1] - world.test_point()).square().sum()
    assert seen.loss[-1] == pytest.approx(float(last))
