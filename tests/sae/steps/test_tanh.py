"""The tanh form of JumpReLU against dense autograd, and by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sae.steps.test_parity import OBJECTIVE, N, batch, compare, make, mask, worst

from perimetry.sae import JumpReLUSAE
from perimetry.sae.affine import Weights
from perimetry.sae.steps import products, tanh
from perimetry.sae.steps.auto import dense_step
from perimetry.sae.steps.base import Objective
from perimetry.sae.steps.sparse import sparse_step

WIDE = OBJECTIVE._replace(bandwidth=2.0, sparsity=0.4)


def jump(seed: int = 0, *, n: int = N, subtract: bool = False) -> JumpReLUSAE:
    state = make("jumprelu", seed, n=n, subtract=subtract).state()
    return JumpReLUSAE.restore(state._replace(settings=state.settings | {"mode": "tanh"}))


@pytest.fixture(params=[2**23, 16 * N])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "CHUNK_ELEMENTS", request.param)


@pytest.fixture
def heavy_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    # The term of the silent latents is so small by default that an error in it would not be seen.
    monkeypatch.setattr(tanh, "PULL", 0.3)


@pytest.mark.usefixtures("chunks", "heavy_pull")
@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("n_dead", [0, 3, N])
@pytest.mark.parametrize("tokens", [1, 50])
def test_gradients_equal_dense_autograd(subtract: bool, n_dead: int, tokens: int) -> None:
    acts = batch(tokens)
    acts[tokens // 2] = 0
    compare(jump(subtract=subtract), acts, mask(n_dead), WIDE)
    compare(jump(subtract=subtract), acts, None, WIDE._replace(sparsity=0.0, bandwidth=0.1))


@pytest.mark.usefixtures("chunks")
def test_nothing_fires_at_all() -> None:
    sae = jump()
    with torch.no_grad():
        sae.b_enc.fill_(-100.0)
    found = sparse_step(sae, batch(10), WIDE, mask(4))
    assert found.l0 == 0
    assert found.smallest is None
    assert not found.fired.any()
    compare(sae, batch(10), mask(4), WIDE)


@settings(max_examples=25, deadline=None)
@given(tokens=st.integers(1, 20), n=st.integers(1, 40), n_dead=st.integers(0, 40), seed=st.integers(0, 999))
def test_gradients_in_any_shape(tokens: int, n: int, n_dead: int, seed: int) -> None:
    sae, acts, dead = jump(seed, n=n).double(), batch(tokens, seed).double(), mask(min(n, n_dead), n)
    assert worst(sparse_step(sae, acts, WIDE, dead), dense_step(sae, acts, WIDE, dead)) < 1e-9


def test_one_latent_by_hand() -> None:
    """x = e = 1, w = 2, theta = .5, window 2, weight 1: z = 1, x_hat = 2, upstream 2 (2 - 1) = 2."""
    weights = Weights(torch.ones(1, 1), torch.full((1, 1), 2.0), torch.zeros(1), torch.zeros(1))
    sae = JumpReLUSAE(weights, threshold=torch.tensor([0.5]), mode="tanh")
    found = sparse_step(sae, torch.ones(1, 1), Objective(sparsity=1.0, bandwidth=2.0))
    size = math.tanh(4 * 1 * 2)
    slope = 4 * (1 - size**2)
    code = 2 * 2 + slope * 2
    assert found.sparsity == pytest.approx(size)
    assert float(found.gradients["threshold"]) == pytest.approx(-0.5 / 2 * code, rel=1e-4)
    assert float(found.gradients["W_enc"]) == pytest.approx(code, rel=1e-4)
    assert float(found.gradients["W_dec"]) == pytest.approx(2 * 1 + slope * 1, rel=1e-4)


def test_a_silent_latent_is_pulled_by_hand() -> None:
    """p = 0 under theta = 3, outside the window of 2: only the term of the silent ones is left, 3e-6 * 3 * |w|."""
    weights = Weights(torch.ones(1, 1), torch.full((1, 1), 2.0), torch.zeros(1), torch.zeros(1))
    sae = JumpReLUSAE(weights, threshold=torch.tensor([3.0]), mode="tanh")
    found = sparse_step(sae, torch.zeros(1, 1), Objective(sparsity=1.0, bandwidth=2.0))
    assert found.sparsity == pytest.approx(3e-6 * 3 * 2)
    assert float(found.gradients["threshold"]) == pytest.approx(3e-6 * 2)
    assert float(found.gradients["b_enc"]) == pytest.approx(-3e-6 * 2)
    assert float(found.gradients["W_dec"]) == pytest.approx(3e-6 * 3)
