import pytest
import torch
from tests.sae.steps.test_parity import OBJECTIVE, batch, compare, make, mask, worst

from perimetry.sae import JumpReLUSAE
from perimetry.sae.affine import Weights, tiny_weights
from perimetry.sae.base import Start
from perimetry.sae.jumprelu import JumpMode, JumpReLUOptions
from perimetry.sae.steps.auto import dense_step
from perimetry.sae.steps.base import L0Loss, Objective
from perimetry.sae.steps.sparse import sparse_step


def jump(mode: JumpMode | None, seed: int = 0) -> JumpReLUSAE:
    state = make("jumprelu", seed).state()
    return JumpReLUSAE.restore(state._replace(settings=state.settings | {"mode": mode}))


@pytest.mark.parametrize("mode", ["target", "step", "token"])
@pytest.mark.parametrize("n_dead", [0, 9])
def test_gradients_of_each_form_equal_dense_autograd(mode: JumpMode, n_dead: int) -> None:
    acts = batch(50)
    acts[3:6] = 0
    compare(jump(mode), acts, mask(n_dead))
    sae, double = jump(mode, 3).double(), acts.double()
    assert worst(sparse_step(sae, double, OBJECTIVE), dense_step(sae, double, OBJECTIVE)) < 1e-9


@pytest.mark.parametrize("form", ["target", "step", "token"])
def test_the_form_comes_from_the_mode_or_else_from_the_recipe(form: L0Loss) -> None:
    acts, recipe = batch(40), OBJECTIVE._replace(l0_loss=form)
    other = OBJECTIVE._replace(l0_loss="step" if form == "target" else "target")
    by_recipe, by_mode = sparse_step(jump(None), acts, recipe), sparse_step(jump(form), acts, other)
    assert by_recipe.sparsity == by_mode.sparsity
    assert torch.equal(by_recipe.gradients["threshold"], by_mode.gradients["threshold"])


def test_the_form_by_token_penalises_the_spread() -> None:
    """Two latents read x0; tokens have 2 and 0 active, so that the mean is the target and the spread is 1."""
    weights = Weights(torch.tensor([[1.0], [1.0]]), torch.ones(2, 1), torch.zeros(2), torch.zeros(1))
    acts = torch.tensor([[1.0], [-1.0]])
    objective = Objective(sparsity=0.5, target_l0=1.0, bandwidth=0.1)
    by_token = sparse_step(JumpReLUSAE(weights, mode="token"), acts, objective)
    assert by_token.sparsity == pytest.approx(0.5 * 2 / 1 * 1)
    assert sparse_step(JumpReLUSAE(weights, mode="target"), acts, objective).sparsity == 0


def test_each_form_has_its_own_defaults() -> None:
    start = Start(torch.zeros(8), d_sae=32, k=4, seed=0)
    cuts = {}
    for mode in (None, "target", "step", "token", "tanh"):
        options = JumpReLUOptions(mode=mode)
        fresh = JumpReLUSAE.fresh(start._replace(options=options))
        assert fresh.mode == mode
        cuts[mode] = round(float(fresh.threshold.detach()[0]), 6)
        assert JumpReLUSAE.restore(fresh.state()).mode == mode
    assert cuts == {None: 1e-3, "target": 1e-3, "step": 1e-3, "token": 1e-3, "tanh": 0.1}
    tanh = JumpReLUSAE.defaults_for(JumpReLUOptions(mode="tanh"))
    assert (tanh.bandwidth, tanh.normalise, tanh.sparsity_warmup) == (2.0, "sqrt_d", 1.0)
    assert not tanh.unit_decoder
    assert JumpReLUSAE.defaults_for(JumpReLUOptions()) == JumpReLUSAE.defaults


def test_the_mode_says_nothing_of_inference() -> None:
    acts = batch(20)[:, :8]
    cut = torch.linspace(0, 0.4, 32)
    codes = [JumpReLUSAE(tiny_weights(), threshold=cut, mode=m).encode(acts).values for m in (None, "tanh", "token")]
    assert torch.equal(codes[0], codes[1])
    assert torch.equal(codes[0], codes[2])
