import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sae.steps.test_parity import NAMES

from perimetry.errors import ConfigError, TooFewSamples
from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES, AffineSAE, Codes
from perimetry.sae.controls import identity, pca, permuted_decoder, random_codes, untrained


def acts(tokens: int = 600, d: int = 8, seed: int = 3) -> torch.Tensor:
    return torch.randn(tokens, d, generator=generator(seed)) * torch.linspace(0.5, 2, d) + 0.3


def tiny(name: str) -> AffineSAE:
    made = ARCHITECTURES[name].tiny()
    assert isinstance(made, AffineSAE)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_an_untrained_twin_has_other_directions_and_the_same_count(name: str) -> None:
    sae = tiny(name)
    sae.fold_scale(0.2)
    twin = untrained(sae, 5, acts(), 4)
    assert type(twin) is type(sae)
    torch.testing.assert_close(twin.W_dec.norm(dim=1), sae.W_dec.detach().norm(dim=1))
    torch.testing.assert_close((twin.W_enc * twin.W_dec).sum(1), torch.ones(32))
    cosines = torch.nn.functional.cosine_similarity(twin.W_dec, sae.W_dec.detach())
    assert float(cosines.abs().mean()) < 0.6
    assert float(twin.encode(acts()).count().mean()) == pytest.approx(4.0, abs=0.01)
    assert torch.equal(twin.W_dec, untrained(sae, 5, acts(), 4).W_dec)
    assert not torch.equal(twin.W_dec, untrained(sae, 6, acts(), 4).W_dec)
    assert not twin.W_dec.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_a_permuted_decoder_keeps_codes_and_rows_but_not_meanings(name: str) -> None:
    sae = tiny(name)
    mixed = permuted_decoder(sae, 2)
    before, after = sae(acts()), mixed(acts())
    assert torch.equal(before.codes.indices, after.codes.indices)
    assert torch.equal(before.codes.values, after.codes.values)
    assert sorted(mixed.W_dec.tolist()) == sorted(sae.W_dec.tolist())
    assert not torch.equal(before.reconstruction, after.reconstruction)
    assert torch.equal(sae.W_dec, tiny(name).W_dec)


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(0, 30), slots=st.integers(1, 9), width=st.integers(9, 40), seed=st.integers(0, 99))
def test_random_codes_keep_values_and_counts(tokens: int, slots: int, width: int, seed: int) -> None:
    source = generator(seed)
    values = torch.rand(tokens, slots, generator=source).sort(dim=1, descending=True).values
    values = values * (values > 0.4)
    found = random_codes(Codes(torch.zeros(tokens, slots, dtype=torch.int64), values, width), seed)
    assert torch.equal(found.values, values)
    assert bool((found.indices[values == 0] == 0).all())
    for row, mask in zip(found.indices, values != 0, strict=True):
        active = row[mask].tolist()
        assert len(set(active)) == len(active)
        assert all(0 <= i < width for i in active)


def test_random_codes_use_all_latents_alike() -> None:
    codes = Codes(torch.zeros(4000, 3, dtype=torch.int64), torch.ones(4000, 3), 12)
    counts = torch.bincount(random_codes(codes, 0).indices.reshape(-1), minlength=12)
    expected = 4000 * 3 / 12
    assert float((counts - expected).abs().max()) < 5 * expected**0.5


def test_pca_is_that_of_a_second_hand() -> None:
    sample = acts(500)
    control = pca(sample, 3)
    assert control.d_sae == 16
    centred = sample.double().numpy() - sample.double().numpy().mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    projections = centred @ directions.T
    keep = np.argsort(-np.abs(projections), axis=1)[:, :3]
    kept = np.zeros_like(projections)
    np.put_along_axis(kept, keep, np.take_along_axis(projections, keep, 1), 1)
    expected = torch.from_numpy(kept @ directions + sample.double().numpy().mean(0))
    torch.testing.assert_close(control(sample).reconstruction.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pca(sample, 8)(sample).reconstruction, sample, rtol=1e-4, atol=1e-4)


def test_what_pca_cannot_be_made_of() -> None:
    with pytest.raises(TooFewSamples, match="1 rows have no principal directions; give at least two"):
        pca(acts(1), 1)
    with pytest.raises(ConfigError, match="k = 9 for activations of width 8; give a k from 1 to 8"):
        pca(acts(), 9)


def test_the_identity_is_exact() -> None:
    out = identity(8)(acts())
    assert torch.equal(out.reconstruction, acts())
    assert bool((out.codes.count() == 8).all())


def test_a_transcoder_has_no_untrained_twin() -> None:
    with pytest.raises(
        ConfigError, match="reads width 8 and writes 6; only a dictionary with one width has an untrained twin"
    ):
        untrained(tiny("transcoder"), 5, acts(), 4)
