"""Transcoders: every gate against dense autograd, parts scaled by themselves, refusals."""

import copy

import pytest
import torch

from perimetry.errors import ConfigError, WidthMismatch
from perimetry.runtime import generator
from perimetry.sae import TranscoderSAE
from perimetry.sae.affine import Weights, initial_weights
from perimetry.sae.base import Start
from perimetry.sae.steps.auto import dense_step
from perimetry.sae.steps.base import Objective
from perimetry.sae.steps.dispatch import exact_step
from perimetry.sae.transcoder import GATES, TranscoderOptions

OBJECTIVE = Objective(sparsity=0.1, target_l0=4.0, bandwidth=0.3, aux=1 / 32)


def make(gate: str, *, skip: bool, d_in: int = 8, d_out: int = 6) -> TranscoderSAE:
    read, write, draw = initial_weights(d_in, 32, seed=0), initial_weights(d_out, 32, seed=1), generator(2)
    weights = Weights(
        read.W_enc, write.W_dec, 0.1 * torch.randn(32, generator=draw), torch.randn(d_out, generator=draw)
    )
    extras = {"W_skip": torch.randn(d_out, d_in, generator=draw)} if skip else {}
    if gate == "jumprelu":
        extras["threshold"] = 0.4 * torch.rand(32, generator=draw)
    return TranscoderSAE.rebuild(weights, extras=extras, settings={"gate": gate, "k": 4})


@pytest.mark.parametrize("gate", sorted(GATES))
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("n_dead", [0, 9])
def test_gradients_equal_dense_autograd(gate: str, skip: bool, n_dead: int) -> None:
    sae, rows = make(gate, skip=skip), torch.randn(50, 14, generator=generator(3))
    rows[:3] = 0
    dead = torch.arange(32) < n_dead
    found = exact_step(sae, rows, OBJECTIVE, dead)
    wanted = dense_step(copy.deepcopy(sae).double(), rows.double(), OBJECTIVE, dead)
    assert found.gradients.keys() == wanted.gradients.keys() == dict(sae.named_parameters()).keys()
    assert ("W_skip" in found.gradients) == skip
    for name, reference in wanted.gradients.items():
        size = max(float(reference.abs().max()), 1e-9)
        assert float((found.gradients[name].double() - reference).abs().max()) < 1e-5 * size, name
    assert found.loss == pytest.approx(wanted.loss, rel=1e-5)
    assert found.fvu == pytest.approx(wanted.fvu, rel=1e-5)


@pytest.mark.parametrize("gate", sorted(GATES))
def test_scales_of_both_places_fold_into_the_weights(gate: str) -> None:
    sae, rows = make(gate, skip=True), torch.randn(30, 14, generator=generator(4))
    before = sae(rows[:, :8] * 0.25)
    sae.fold_scales((0.25, 4.0))
    after = sae(rows[:, :8])
    torch.testing.assert_close(after.codes.dense(), before.codes.dense(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after.reconstruction, before.reconstruction / 4.0, rtol=1e-5, atol=1e-5)


def test_a_fresh_one_writes_the_centre_of_the_target_and_nothing_else() -> None:
    centre = torch.arange(10.0)
    options = TranscoderOptions(gate="batchtopk", d_in=7, skip=True)
    sae = TranscoderSAE.fresh(Start(centre, d_sae=20, k=3, seed=0, options=options))
    assert (sae.d_model, sae.W_dec.shape[1], sae.row_width, sae.subtract_b_dec) == (7, 3, 10, False)
    assert torch.equal(sae(torch.randn(4, 7, generator=generator(0))).reconstruction, centre[7:].expand(4, 3))
    assert TranscoderSAE.row_parts(10, options) == (7, 3)
    assert TranscoderSAE.row_parts(10, TranscoderOptions()) == (5, 5)
    assert TranscoderSAE.defaults_for(options).aux == 1 / 32
    assert not TranscoderSAE.defaults_for(options).unit_decoder


def test_the_threshold_is_fitted_on_what_is_read() -> None:
    sae, rows = make("batchtopk", skip=False), torch.randn(200, 14, generator=generator(5))
    assert sae.settle(rows, 4) == {"threshold_rule": "mean L0 = k on held-out tokens"}
    assert float(sae.encode(sae.inputs(rows)).count().mean()) == pytest.approx(4, abs=1e-6)
    assert make("topk", skip=False).settle(rows, 4) == {}


def test_what_does_not_fit_is_refused() -> None:
    sae = make("topk", skip=True)
    with pytest.raises(
        WidthMismatch, match="rows of 9 numbers for a transcoder from 8 to 6; give rows of input and target, 14"
    ):
        sae.inputs(torch.zeros(2, 9))
    with pytest.raises(ConfigError, match="a row of 9 numbers cannot hold an input of 4 and a target; give d_in"):
        TranscoderSAE.row_parts(9, TranscoderOptions())
    with pytest.raises(ConfigError, match="a row of 9 numbers cannot hold an input of 9"):
        TranscoderSAE.row_parts(9, TranscoderOptions(d_in=9))
    with pytest.raises(
        ConfigError, match="a transcoder with gate 'spade', subtract_b_dec None; wanted one of batchtopk"
    ):
        TranscoderSAE.rebuild(
            Weights(*(p.detach() for p in (sae.W_enc, sae.W_dec, sae.b_enc, sae.b_dec))),
            extras={},
            settings={"gate": "spade"},
        )
    with pytest.raises(WidthMismatch, match=r"W_skip has shape \(6, 7\), \(6, 8\) is wanted"):
        TranscoderSAE(sae.gate, W_skip=torch.zeros(6, 7))
