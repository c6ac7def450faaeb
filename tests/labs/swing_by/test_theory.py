"""The theory, held against what it is derived from."""

import numpy as np
import pytest

from perimetry.labs.swing_by.theory import one_layer, one_layer_exact, parts_of, turn_of, two_layers

MU = np.array([1.0, 2.0])
A = 0.05**2 + MU**2 / 2


def test_the_parts_add_up_to_what_moves_w() -> None:
    draw = np.random.default_rng(0)
    u, a, one = draw.normal(size=(4, 4)), draw.uniform(0.5, 2, 4), np.eye(4)
    w = u @ u.T
    flow = -0.5 * ((w - one) @ np.diag(a) + np.diag(a) @ (w - one)) @ u
    parts = parts_of(w, a)
    np.testing.assert_allclose(parts.growth - parts.suppression - parts.noise, flow @ u.T + u @ flow.T, atol=1e-12)


def test_a_lone_diagonal_grows_as_the_theory_says() -> None:
    parts = parts_of(np.array([[0.3]]), np.array([2.0]))
    assert float(parts.growth[0, 0] - parts.suppression[0, 0] - parts.noise[0, 0]) == pytest.approx(2 * 2 * 0.3 * 0.7)


def test_one_layer_is_solved_and_never_swings() -> None:
    found = one_layer(MU, A, np.random.default_rng(1), steps=3000, eta=0.001)
    for w, step in zip(found.weights[::50], found.kept[::50], strict=True):
        np.testing.assert_allclose(w @ MU, one_layer_exact(found.weights[0], MU, np.exp(-A * 0.001 * step)), atol=2e-3)
        np.testing.assert_allclose(w @ MU, one_layer_exact(found.weights[0], MU, (1 - 0.001 * A) ** step), atol=1e-9)
    assert turn_of(found.loss).rebound == 1.0


def test_two_layers_swing_while_the_training_loss_falls() -> None:
    found = two_layers(MU, A, np.random.default_rng(3))
    turn = turn_of(found.loss)
    assert turn.rebound > 1.02
    assert 0 < turn.at_low < turn.at_high < len(found.loss) - 1
    assert (np.diff(found.train) <= 1e-15).all()
    assert found.loss[-1] < 1e-3


def test_a_turn_of_a_falling_and_of_a_rising_loss() -> None:
    assert turn_of(np.array([3.0, 2.0, 1.0])).rebound == 1.0
    rising = turn_of(np.array([3.0, 2.0, 2.5, 4.0]))
    assert (rising.rebound, rising.at_low, rising.at_high) == (2.0, 1, 3)
