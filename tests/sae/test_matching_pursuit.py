"""Matching pursuit against a plain loop over tokens."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import ConfigError
from perimetry.runtime import generator
from perimetry.sae.affine import initial_weights
from perimetry.sae.base import SAEState, Start
from perimetry.sae.matching_pursuit import MatchingPursuitOptions, MatchingPursuitSAE
from perimetry.sae.pursuit import PursuitRule
from perimetry.sae.steps import products
from perimetry.sae.steps.auto import autograd_step, dense_step
from perimetry.sae.steps.base import Objective


def plain(acts: np.ndarray, atoms: np.ndarray, bias: np.ndarray, rule: PursuitRule) -> np.ndarray:
    codes = np.zeros((acts.shape[0], atoms.shape[0]))
    for row, token in enumerate(acts):
        left = token - bias
        for _ in range(rule.max_iterations):
            agree = atoms @ left
            best = int(agree.argmax())
            if agree[best] <= 4e-7 * np.linalg.norm(token - bias):
                break
            seen = codes[row, best] != 0
            codes[row, best] += agree[best]
            left = left - agree[best] * atoms[best]
            if np.linalg.norm(left) < rule.residual_threshold or (seen and rule.stop_on_duplicate_support):
                break
    return codes


def pursuer(rule: PursuitRule, width: int = 20, seed: int = 0) -> MatchingPursuitSAE:
    weights = initial_weights(6, width, seed)
    return MatchingPursuitSAE(weights.W_dec, torch.linspace(-0.3, 0.3, 6), rule)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.booleans(),
    st.integers(1, 30),
    st.integers(0, 10_000),
)
def test_codes_are_those_of_a_plain_loop(steps: int, stop: float, unique: bool, width: int, seed: int) -> None:
    sae = pursuer(PursuitRule(steps, stop, unique), width, seed)
    acts = torch.randn(9, 6, generator=generator(seed + 1))
    acts[0] = sae.b_dec.detach()
    wanted = plain(
        acts.double().numpy(), sae.W_dec.detach().double().numpy(), sae.b_dec.detach().double().numpy(), sae.rule
    )
    codes = sae.encode(acts)
    np.testing.assert_allclose(codes.dense().numpy(), wanted, atol=1e-5)
    assert codes.count().tolist() == (wanted != 0).sum(1).tolist()


def test_worked_by_hand() -> None:
    atoms = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]])
    sae = MatchingPursuitSAE(atoms, torch.tensor([1.0, 1.0]), PursuitRule(5))
    # Less the bias (2, 1): atom 1 takes 2.0 (2 * .6 + .8) and atom 0 takes 2.0; equal, so atom 0; then (0, 1) gives
    # atom 1 .8 and leaves (-.48, .36), with which no atom agrees.
    out = sae(torch.tensor([[3.0, 2.0]]))
    assert out.codes.indices.tolist() == [[0, 1]]
    assert out.codes.values[0].tolist() == pytest.approx([2.0, 0.8])
    assert out.reconstruction[0].tolist() == pytest.approx([3.48, 1.64])


def test_a_residual_that_only_rounding_makes_agree_takes_no_atom() -> None:
    atoms = initial_weights(6, 1, 3).W_dec
    sae = MatchingPursuitSAE(atoms, torch.zeros(6), PursuitRule(5, 0.0, stop_on_duplicate_support=False))
    acts = torch.randn(200, 6, generator=generator(5))
    acts = acts * torch.sign(acts @ atoms.T)
    torch.testing.assert_close(sae.encode(acts).dense(), (acts @ atoms.T), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", [PursuitRule(6), PursuitRule(6, 0.4), PursuitRule(9, 0.1, False)])
@pytest.mark.parametrize("n_dead", [0, 5])
def test_gradients_by_every_rule(rule: PursuitRule, n_dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "CHUNK_ELEMENTS", 20 * 16)
    for gain in (1.0, 4.0):
        sae = pursuer(rule)
        sae.fold_scale(gain)
        acts = torch.randn(50, 6, generator=generator(7)) / gain
        dead = torch.arange(20) >= 20 - n_dead
        found = autograd_step(sae, acts, Objective(aux=0.5), dead)
        wanted = dense_step(copy.deepcopy(sae).double(), acts.double(), Objective(aux=0.5), dead)
        assert (found.aux > 0) == (n_dead > 0)
        for name, reference in wanted.gradients.items():
            error = float((found.gradients[name].double() - reference).abs().max())
            assert error < 1e-5 * float(reference.abs().max()), name


def test_gradient_against_finite_differences() -> None:
    sae = pursuer(PursuitRule(3)).double()
    acts = torch.randn(12, 6, dtype=torch.float64, generator=generator(9))
    found = autograd_step(sae, acts, Objective()).gradients["W_dec"]
    step = 1e-6
    for row, column in ((0, 0), (3, 2), (11, 5)):
        up, down = copy.deepcopy(sae), copy.deepcopy(sae)
        up.W_dec.data[row, column] += step
        down.W_dec.data[row, column] -= step
        losses = [autograd_step(s, acts, Objective()).reconstruction for s in (up, down)]
        assert float(found[row, column]) == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-5, abs=1e-8)


def fresh(k: int = 3, **options: object) -> MatchingPursuitSAE:
    made = MatchingPursuitOptions.model_validate(options)
    return MatchingPursuitSAE.fresh(Start(torch.ones(6), 20, k, 0, options=made))


def test_when_the_count_is_free() -> None:
    assert MatchingPursuitSAE.count_mode == "fixed"
    assert (fresh().count_mode, fresh().rule.max_iterations) == ("fixed", 3)
    free = fresh(residual_threshold=0.1)
    assert (free.count_mode, free.rule.max_iterations) == ("free", 6)
    assert fresh(residual_threshold=0.1, max_iterations=5).count_mode == "fixed"
    assert type(free).restore(free.state()).count_mode == "free"


def test_a_folded_one_says_so_in_its_state() -> None:
    sae = fresh(residual_threshold=0.5)
    assert sae.state().tensors.keys() == {"W_dec", "b_dec"}
    sae.fold_scale(0.3)
    state = sae.state()
    assert state.tensors.keys() == {"W_dec", "b_dec", "atom_norm"}
    assert state.settings["residual_threshold"] == pytest.approx(0.5 / 0.3)
    again = MatchingPursuitSAE.restore(state)
    assert again.rule == sae.rule
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.full((20,), sae.rule.atom_norm))


def test_a_bias_that_is_not_taken_off_is_not_added_either() -> None:
    state = fresh().state()
    made = MatchingPursuitSAE.restore(SAEState(state.tensors, {**state.settings, "subtract_b_dec": False}))
    assert made.b_dec.detach().tolist() == [0.0] * 6


def test_a_rule_that_never_ends_well_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"a pursuit of 0 steps to a residual of 0.0 with atoms of norm 1.0; give 1 step"
    ):
        pursuer(PursuitRule(0))
