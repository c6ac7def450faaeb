import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sae.steps.test_parity import OBJECTIVE, batch, compare, make, mask, worst

from perimetry.errors import WidthMismatch
from perimetry.runtime import generator
from perimetry.sae import GatedSAE
from perimetry.sae.affine import Weights, tiny_weights
from perimetry.sae.steps import products
from perimetry.sae.steps.auto import dense_step
from perimetry.sae.steps.base import Objective
from perimetry.sae.steps.sparse import sparse_step


def gated(seed: int = 0, n: int = 40) -> GatedSAE:
    """Gates and magnitudes that disagree on many latents."""
    state, source = make("gated", seed, n=n).state(), generator(seed + 50)
    more = {"r_mag": 0.5 * torch.randn(n, generator=source), "b_mag": 0.5 * torch.randn(n, generator=source)}
    return GatedSAE.restore(state._replace(tensors=state.tensors | more))


@pytest.fixture(params=[-1.0, 2.0], ids=["by chunks", "by entries"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "DENSE_ABOVE", request.param)


@pytest.mark.usefixtures("way")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tokens=st.integers(1, 30),
    n=st.integers(1, 50),
    n_dead=st.integers(0, 50),
    seed=st.integers(0, 999),
    aux=st.booleans(),
)
def test_gradients_in_any_shape(tokens: int, n: int, n_dead: int, seed: int, aux: bool) -> None:
    sae, acts, dead = gated(seed, n).double(), batch(tokens, seed).double(), mask(min(n, n_dead), n)
    objective = OBJECTIVE._replace(aux=0.1 if aux else 0.0)
    assert worst(sparse_step(sae, acts, objective, dead), dense_step(sae, acts, objective, dead)) < 1e-9


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("n_dead", [0, 9])
def test_all_that_a_step_says_in_both_ways(n_dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "CHUNK_ELEMENTS", 16 * 40)
    acts = batch(50)
    acts[5:9] = 0
    compare(gated(), acts, mask(n_dead))


def by_hand() -> GatedSAE:
    """x = 1; q = 1, pi = 2, magnitude e^0 * 1 - 1/2 = 1/2; w = 2, so that x_hat = 1 and the gate alone writes 4."""
    weights = Weights(torch.ones(1, 1), torch.full((1, 1), 2.0), torch.ones(1), torch.zeros(1))
    return GatedSAE(weights, r_mag=torch.zeros(1), b_mag=torch.tensor([-0.5]))


@pytest.mark.usefixtures("way")
def test_one_latent_by_hand() -> None:
    found = sparse_step(by_hand(), torch.ones(1, 1), Objective(sparsity=0.5))
    assert found.reconstruction == 0
    assert found.sparsity == pytest.approx(0.5 * 2 * 2)
    assert found.further == pytest.approx((1 - 4) ** 2)
    # Towards the gate: -2 (1 - 4) 2 + .5 * 2 = 13; towards the magnitude nothing, for the reconstruction is perfect.
    assert float(found.gradients["b_enc"]) == pytest.approx(13.0)
    assert float(found.gradients["b_mag"]) == 0
    # The gate's reconstruction takes the decoder for a constant: only the penalty's pi is left.
    assert float(found.gradients["W_dec"]) == pytest.approx(0.5 * 2)
    # b_dec gets what comes through the encoder, -13, and nothing from the gate's own reconstruction.
    assert float(found.gradients["b_dec"]) == pytest.approx(-13.0)


def test_a_latent_fires_where_both_gate_and_magnitude_are_positive() -> None:
    """Product x0 for all: gates shut at .5 for the second, magnitudes negative for the third."""
    zeros = torch.zeros(3, 1)
    weights = Weights(zeros + 1, zeros + 1, torch.tensor([0.0, -0.6, 0.0]), torch.zeros(1))
    sae = GatedSAE(weights, b_mag=torch.tensor([0.1, 0.1, -0.7]))
    assert sae.encode(torch.tensor([[0.5]])).dense()[0].tolist() == pytest.approx([0.6, 0.0, 0.0])
    found = sparse_step(sae, torch.tensor([[0.5]]), Objective(sparsity=1.0))
    assert found.l0 == 1
    # The third does not fire, and yet its gate pays.
    assert found.sparsity == pytest.approx(0.5 + 0.5)
    assert float(found.gradients["b_enc"][2]) != 0
    assert float(found.gradients["b_mag"][2]) == 0


def test_mutants_of_the_stop_gradients_would_be_seen() -> None:
    sae = gated().double()
    rows, wanted = batch(30).double(), dense_step(gated().double(), batch(30).double(), OBJECTIVE)
    assert worst(sparse_step(sae, rows, OBJECTIVE), wanted) < 1e-9
    pre = (rows - sae.b_dec) @ sae.W_enc.T + sae.b_enc
    leaked = (rows - torch.relu(pre) @ sae.W_dec - sae.b_dec).square().sum(1).mean()
    for name in ("W_dec", "b_dec"):
        extra = torch.autograd.grad(leaked, getattr(sae, name), retain_graph=True)[0]
        assert float(extra.abs().max()) > 1e-3 * float(wanted.gradients[name].abs().max())


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(WidthMismatch, match=r"r_mag has shape \(3,\), the dictionary has 32 latents; give one number"):
        GatedSAE(tiny_weights(), r_mag=torch.zeros(3))
