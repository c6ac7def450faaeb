"""What every architecture in the table must do, without being told of it."""

from pathlib import Path

import pytest
import torch

from perimetry.errors import WidthMismatch
from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES, AffineSAE, Codes
from perimetry.sae.formats import SAEInfo, load_sae, save_sae
from perimetry.sae.steps import products


@pytest.fixture(params=sorted(ARCHITECTURES))
def sae(request: pytest.FixtureRequest) -> AffineSAE:
    made = ARCHITECTURES[request.param].tiny()
    assert isinstance(made, AffineSAE)
    return made


@pytest.fixture
def acts() -> torch.Tensor:
    return torch.randn(50, 8, generator=generator(3))


def test_the_name_in_the_table_is_the_name_of_the_class(sae: AffineSAE) -> None:
    assert ARCHITECTURES[sae.architecture] is type(sae)
    assert sae.count_mode in ("free", "fixed", "budget")
    assert (sae.d_model, sae.d_sae) == (8, 32)


def test_docstring_says_what_is_assumed_and_of_the_count(sae: AffineSAE) -> None:
    module = __import__(type(sae).__module__, fromlist=["__doc__"])
    assert "Assumes" in module.__doc__
    assert sae.count_mode in module.__doc__


def test_codes_are_sorted_padded_finite_and_equal_each_time(sae: AffineSAE, acts: torch.Tensor) -> None:
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
    sae: AffineSAE, acts: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sae.encode(acts).dense()
    monkeypatch.setattr(products, "CHUNK_ELEMENTS", 7 * 32)
    assert products.chunk_rows(32) == 7
    torch.testing.assert_close(sae.encode(acts).dense(), whole, rtol=1e-5, atol=1e-6)


def test_each_token_is_encoded_alone(sae: AffineSAE, acts: torch.Tensor) -> None:
    whole = sae.encode(acts).dense()
    alone = torch.cat([sae.encode(row[None]).dense() for row in acts])
    torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-6)


def test_decode_is_the_sum_of_rows(sae: AffineSAE, acts: torch.Tensor) -> None:
    out = sae(acts)
    expected = out.codes.dense().double() @ sae.W_dec.double() + sae.b_dec.double()
    torch.testing.assert_close(out.reconstruction.double(), expected.detach(), rtol=1e-5, atol=1e-5)


def test_a_token_without_concepts_decodes_to_the_bias(sae: AffineSAE) -> None:
    nothing = Codes(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1), 32)
    assert torch.equal(sae.decode(nothing), sae.b_dec.detach().expand(2, 8))


def test_no_token_gives_no_code(sae: AffineSAE) -> None:
    out = sae(torch.zeros(0, 8))
    assert out.codes.values.shape == (0, 1)
    assert out.reconstruction.shape == (0, 8)


def test_another_width_is_refused(sae: AffineSAE) -> None:
    with pytest.raises(WidthMismatch, match="the SAE reads width 8 but the input gives 9; pick another layer"):
        sae.encode(torch.zeros(2, 9))
    with pytest.raises(WidthMismatch, match="codes of width 31 for an SAE of 32 latents"):
        sae.decode(Codes(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1), 31))


def test_saved_and_loaded_it_gives_the_same_codes(sae: AffineSAE, acts: torch.Tensor, tmp_path: Path) -> None:
    save_sae(sae, tmp_path / "sae", SAEInfo(architecture=sae.architecture))
    loaded = load_sae(tmp_path / "sae")
    assert type(loaded.sae) is type(sae)
    assert loaded.verified
    ours, theirs = sae(acts), loaded.sae(acts)
    assert torch.equal(ours.codes.indices, theirs.codes.indices)
    assert torch.equal(ours.codes.values, theirs.codes.values)
    assert torch.equal(ours.reconstruction, theirs.reconstruction)


def test_a_folded_scale_keeps_the_codes_and_scales_the_reconstruction(sae: AffineSAE, acts: torch.Tensor) -> None:
    before = sae(acts * 0.25)
    sae.fold_scale(0.25)
    after = sae(acts)
    torch.testing.assert_close(after.codes.dense(), before.codes.dense(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after.reconstruction, before.reconstruction * 4, rtol=1e-5, atol=1e-5)


def test_the_inference_rule_by_a_second_hand(sae: AffineSAE, acts: torch.Tensor) -> None:
    centred = acts - sae.b_dec if sae.subtract_b_dec else acts
    pre = (centred @ sae.W_enc.T + sae.b_enc).detach()
    if sae.architecture == "topk":
        expected = torch.zeros_like(pre)
        for t in range(50):
            best = sorted(range(32), key=lambda i: (-float(pre[t, i]), i))[:4]
            expected[t, best] = pre[t, best].clamp(min=0)
    else:
        cut = {"standard": torch.zeros(1), "jumprelu": sae.extras().get("threshold"), "batchtopk": torch.tensor(0.3)}
        expected = torch.where(pre > cut[sae.architecture], pre, 0)
    torch.testing.assert_close(sae.encode(acts).dense(), expected, rtol=1e-5, atol=1e-6)
