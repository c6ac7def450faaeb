"""What every architecture in the table must do, without being told of it."""

import copy
import json
from pathlib import Path

import pytest
import torch

from perimetry.errors import WidthMismatch
from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES, AbstractSAE, AffineSAE, Codes, CrosscoderSAE
from perimetry.sae.base import Start
from perimetry.sae.formats import SAEInfo, load_sae, save_sae
from perimetry.sae.steps import products
from perimetry.sae.steps.auto import dense_step
from perimetry.sae.steps.base import Objective
from perimetry.sae.steps.dispatch import exact_step

AFFINE = sorted(name for name, cls in ARCHITECTURES.items() if issubclass(cls, AffineSAE))


@pytest.fixture(params=sorted(ARCHITECTURES))
def sae(request: pytest.FixtureRequest) -> AbstractSAE:
    return ARCHITECTURES[request.param].tiny()


@pytest.fixture(params=AFFINE)
def affine(request: pytest.FixtureRequest) -> AffineSAE:
    made = ARCHITECTURES[request.param].tiny()
    assert isinstance(made, AffineSAE)
    return made


@pytest.fixture
def acts() -> torch.Tensor:
    return torch.randn(50, 8, generator=generator(3))


def test_the_name_in_the_table_is_the_name_of_the_class(sae: AbstractSAE) -> None:
    assert ARCHITECTURES[sae.architecture] is type(sae)
    assert sae.count_mode in ("free", "fixed", "budget")
    assert (sae.d_model, sae.d_sae) == (8, 32)


def test_docstring_says_what_is_assumed_and_of_the_count(sae: AbstractSAE) -> None:
    module = __import__(type(sae).__module__, fromlist=["__doc__"])
    assert "Assumes" in module.__doc__
    assert sae.count_mode in module.__doc__


def test_codes_are_sorted_padded_finite_and_equal_each_time(sae: AbstractSAE, acts: torch.Tensor) -> None:
    codes = sae.encode(acts)
    assert codes.width == 32
    assert bool(torch.isfinite(codes.values).all())
    assert bool((codes.values.diff(dim=1) <= 0).all())
    assert bool((codes.indices[codes.values == 0] == 0).all())
    assert codes.values.shape[1] == max(1, int(codes.count().max()))
    for row, values in zip(codes.indices.tolist(), codes.values.tolist(), strict=True):
        active = [i for i, v in zip(row, values, strict=True) if v != 0]
        assert len(set(active)) == len(active)
    again = sae.encode(acts)
    assert torch.equal(codes.indices, again.indices)
    assert torch.equal(codes.values, again.values)


def test_encoding_by_chunks_changes_nothing(
    affine: AffineSAE, acts: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = affine.encode(acts).dense()
    monkeypatch.setattr(products, "CHUNK_ELEMENTS", 7 * 32)
    assert products.chunk_rows(32) == 7
    torch.testing.assert_close(affine.encode(acts).dense(), whole, rtol=1e-5, atol=1e-6)


def test_each_token_is_encoded_alone(sae: AbstractSAE, acts: torch.Tensor) -> None:
    whole = sae.encode(acts).dense()
    alone = torch.cat([sae.encode(row[None]).dense() for row in acts])
    torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-6)


def test_decode_is_the_sum_of_rows(affine: AffineSAE, acts: torch.Tensor) -> None:
    out = affine(acts)
    expected = out.codes.dense().double() @ affine.W_dec.double() + affine.b_dec.double()
    torch.testing.assert_close(affine.decode(out.codes).double(), expected.detach(), rtol=1e-5, atol=1e-5)


def test_a_token_without_concepts_decodes_to_the_bias(affine: AffineSAE) -> None:
    nothing = Codes(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1), 32)
    assert torch.equal(affine.decode(nothing), affine.b_dec.detach().expand(2, -1))


def test_no_token_gives_no_code(sae: AbstractSAE) -> None:
    out = sae(torch.zeros(0, 8))
    assert out.codes.values.shape == (0, 1)
    assert out.reconstruction.shape == (0, sae.W_dec.shape[1])


def test_another_width_is_refused(sae: AbstractSAE) -> None:
    with pytest.raises(WidthMismatch, match="the SAE reads width 8 but the input gives 9; pick another layer"):
        sae.encode(torch.zeros(2, 9))
    with pytest.raises(WidthMismatch, match="codes of width 31 for an SAE of 32 latents"):
        sae.decode(Codes(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1), 31))


def test_saved_and_loaded_it_gives_the_same_codes(sae: AbstractSAE, acts: torch.Tensor, tmp_path: Path) -> None:
    save_sae(sae, tmp_path / "sae", SAEInfo(architecture=sae.architecture))
    loaded = load_sae(tmp_path / "sae")
    assert type(loaded.sae) is type(sae)
    assert loaded.verified
    ours, theirs = sae(acts), loaded.sae(acts)
    assert torch.equal(ours.codes.indices, theirs.codes.indices)
    assert torch.equal(ours.codes.values, theirs.codes.values)
    assert torch.equal(ours.reconstruction, theirs.reconstruction)


def test_a_folded_scale_keeps_the_codes_and_scales_the_reconstruction(sae: AbstractSAE, acts: torch.Tensor) -> None:
    before = sae(acts * 0.25)
    sae.fold_scale(0.25)
    after = sae(acts)
    torch.testing.assert_close(after.codes.dense(), before.codes.dense(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after.reconstruction, before.reconstruction * 4, rtol=1e-5, atol=1e-5)


def test_its_state_rebuilds_it(sae: AbstractSAE, acts: torch.Tensor) -> None:
    state = sae.state()
    json.dumps(state.settings, allow_nan=False)
    again = type(sae).restore(state)
    assert again.state().settings == state.settings
    assert {n: t.tolist() for n, t in again.state().tensors.items()} == {
        n: t.tolist() for n, t in state.tensors.items()
    }
    assert torch.equal(again(acts).reconstruction, sae(acts).reconstruction)


def test_a_fresh_one_follows_its_seed(sae: AbstractSAE) -> None:
    rows = torch.randn(40, 8, generator=generator(4))
    start = Start(rows.mean(0), d_sae=32, k=4, seed=5, options=type(sae).options_type())
    one, same, other = (type(sae).fresh(start._replace(seed=s)) for s in (5, 5, 6))
    assert one.d_sae == 32
    first, again, third = (made.state().tensors for made in (one, same, other))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


@pytest.mark.parametrize("tokens", [1, 60])
@pytest.mark.parametrize("n_dead", [0, 3, 20, 32])
def test_the_fast_step_gives_the_gradients_of_the_reference(sae: AbstractSAE, tokens: int, n_dead: int) -> None:
    rows = torch.randn(tokens, sae.row_width, generator=generator(8))
    rows[0] = 0
    dead = torch.arange(32) < n_dead
    objective = Objective(sparsity=0.1, target_l0=4.0, bandwidth=0.3, aux=1 / 32)
    found = exact_step(sae, rows, objective, dead)
    wanted = dense_step(copy.deepcopy(sae).double(), rows.double(), objective, dead)
    assert found.gradients.keys() == wanted.gradients.keys() == dict(sae.named_parameters()).keys()
    for name, reference in wanted.gradients.items():
        size = max(float(reference.abs().max()), 1e-9)
        assert float((found.gradients[name].double() - reference).abs().max()) < 1e-5 * size, name
    for key in ("reconstruction", "sparsity", "aux", "further", "fvu", "l0"):
        assert getattr(found, key) == pytest.approx(getattr(wanted, key), rel=1e-5, abs=1e-7), key
    assert torch.equal(found.fired, wanted.fired)


def test_the_inference_rule_by_a_second_hand(affine: AffineSAE, acts: torch.Tensor) -> None:
    centred = acts - affine.b_dec if affine.subtract_b_dec else acts
    pre = (centred @ affine.W_enc.T + affine.b_enc).detach()
    if affine.settings().get("gate", affine.architecture) in ("hierarchical", "topk"):
        expected = torch.zeros_like(pre)
        for t in range(50):
            best = sorted(range(32), key=lambda i: (-float(pre[t, i]), i))[:4]
            expected[t, best] = pre[t, best].clamp(min=0)
    elif affine.architecture == "gated":
        extras, product = affine.extras(), pre - affine.b_enc.detach()
        expected = (extras["r_mag"].exp() * product + extras["b_mag"]).relu() * (pre > 0)
    else:
        learned = affine.extras().get("threshold", torch.zeros(1))
        sizes = affine.source_norms().norms.sum(1) if isinstance(affine, CrosscoderSAE) else 1.0
        expected = torch.where(pre * sizes > affine.settings().get("threshold", learned), pre, 0)
        assert bool((expected == 0).any())
    torch.testing.assert_close(affine.encode(acts).dense(), expected, rtol=1e-5, atol=1e-6)
