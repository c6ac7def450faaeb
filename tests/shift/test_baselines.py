"""Baselines against scikit-learn and plain formulas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from perimetry.errors import UsageError
from perimetry.shift.base import Evidence
from perimetry.shift.controls import RandomDictionary
from perimetry.shift.energy import Energy, ShuffledDecoder
from perimetry.shift.knn import KNN, Cosine, largest, nearest
from perimetry.shift.likelihood import NLLCusum, NLLWindow
from perimetry.shift.mahalanobis import Mahalanobis, RelativeMahalanobis
from perimetry.shift.pooled import CodeKNN, CodeMahalanobis
from perimetry.shift.pooling import pool, reference_of
from perimetry.shift.profile import Profile
from perimetry.shift.reconstruction import PCAResidual, ReconError, ReconRelative
from perimetry.shift.surface import Length, Norm, TokensPerWord, UnigramSurprisal

from . import worlds


@pytest.fixture(scope="module")
def seen() -> list[Evidence]:
    return [worlds.clean(seed) for seed in range(5)]


@pytest.fixture(scope="module")
def acts(seen: list[Evidence]) -> torch.Tensor:
    return torch.cat([evidence.acts for evidence in seen]).double()


@pytest.fixture(scope="module")
def profile(seen: list[Evidence]) -> Profile:
    return worlds.profile_of(*seen)


@pytest.fixture(scope="module")
def fresh() -> Evidence:
    return worlds.shifted(50, 10)


def close(got: torch.Tensor, wanted: object, tolerance: float = 1e-3) -> None:
    torch.testing.assert_close(got, torch.as_tensor(wanted).float(), rtol=tolerance, atol=tolerance)


def test_mahalanobis_equals_sklearn(acts: torch.Tensor, profile: Profile, fresh: Evidence) -> None:
    wanted = EmpiricalCovariance().fit(acts.numpy()).mahalanobis(fresh.acts.double().numpy())
    close(Mahalanobis.fit(profile).score(fresh), wanted)


def test_relative_mahalanobis_by_its_definition(
    seen: list[Evidence], acts: torch.Tensor, profile: Profile, fresh: Evidence
) -> None:
    bucket = profile.buckets[torch.cat([evidence.tokens for evidence in seen])]
    mean = acts.mean(0)
    means = torch.stack([(acts[bucket == b].sum(0) + 8 * mean) / (int((bucket == b).sum()) + 8) for b in range(256)])
    within = acts - means[bucket]
    x = fresh.acts.double()
    own = x - means[profile.buckets[fresh.tokens]]
    first = torch.einsum("ti,ij,tj->t", own, torch.linalg.inv(within.T @ within / len(acts)), own)
    second = torch.einsum("ti,ij,tj->t", x - mean, torch.linalg.inv(torch.cov(acts.T, correction=0)), x - mean)
    close(RelativeMahalanobis.fit(profile).score(fresh), first - second)


def test_pca_residual_equals_sklearn(acts: torch.Tensor, profile: Profile, fresh: Evidence) -> None:
    pca = PCA(n_components=0.9, svd_solver="full").fit(acts.numpy())
    back = pca.inverse_transform(pca.transform(fresh.acts.double().numpy()))
    detector = PCAResidual.fit(profile)
    assert detector.directions.shape[1] == pca.n_components_
    close(detector.score(fresh), (fresh.acts.double() - torch.from_numpy(back)).square().sum(1))


def test_knn_and_cosine_equal_sklearn(profile: Profile, fresh: Evidence) -> None:
    sample = profile.sample.columns["acts"].double()
    far = NearestNeighbors(n_neighbors=10).fit(sample.numpy()).kneighbors(fresh.acts.double().numpy())[0]
    close(KNN.fit(profile).score(fresh), far[:, 9])
    mean = profile.mean()
    turn = NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit((sample - mean).numpy())
    apart = turn.kneighbors((fresh.acts.double() - mean).numpy())[0]
    # The sample's directions are kept in bfloat16.
    close(Cosine.fit(profile).score(fresh), apart.mean(1), 5e-3)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 700), st.integers(1, 8), st.integers(0, 10_000))
def test_largest_equals_topk(columns: int, k: int, seed: int) -> None:
    """In torch, which float64 leaves it to: the kernel has its own tests."""
    x = torch.randint(0, 50, (3, columns), generator=torch.Generator().manual_seed(seed)).double()
    got = largest(x, k)
    wanted = x.topk(min(k, columns), dim=1).values
    assert torch.equal(got.values.sort(1, descending=True).values, wanted)
    assert torch.equal(x.gather(1, got.indices), got.values)
    assert all(len(set(row)) == len(row) for row in got.indices.tolist())


@pytest.mark.parametrize("offset", [0.0, -40.0], ids=["positive", "negative products in most rows"])
def test_nearest_rows_are_those_of_the_float64_product(offset: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, table = torch.randn(300, 64, generator=generator), torch.randn(1200, 64, generator=generator)
    shift = torch.full((1200,), offset) + torch.rand(1200, generator=generator)
    got = nearest(x, table, 16, shift)
    wanted = (x.double() @ table.double().T + shift).topk(17, dim=1)
    # Two products closer than rounding may change places; this data has no such pair at the edge of the list.
    assert float((wanted.values[:, 15] - wanted.values[:, 16]).min()) > 1e-5
    assert torch.equal(got.indices.sort(1).values, wanted.indices[:, :16].sort(1).values)
    torch.testing.assert_close(
        got.values.sort(1).values.double(), wanted.values[:, :16].sort(1).values, rtol=0, atol=1e-4
    )


def test_reconstruction_errors(profile: Profile, acts: torch.Tensor, fresh: Evidence) -> None:
    error = (fresh.acts - fresh.reconstruction).square().sum(1)
    close(ReconError.fit(profile).score(fresh), error)
    close(ReconRelative.fit(profile).score(fresh), error / (fresh.acts - acts.mean(0)).square().sum(1))
    at_the_mean = fresh._replace(acts=profile.mean().float().expand_as(fresh.acts).clone())
    assert bool(torch.isfinite(ReconRelative.fit(profile).score(at_the_mean)).all())


def test_surface_scores(seen: list[Evidence], profile: Profile, fresh: Evidence) -> None:
    lengths = torch.bincount(fresh.prompt).float()
    assert torch.equal(Length.fit(profile).score(fresh), lengths)
    assert torch.equal(TokensPerWord.fit(profile).score(fresh), lengths / fresh.words)
    close(Norm.fit(profile).score(fresh), fresh.acts.norm(dim=1))
    counts = torch.bincount(torch.cat([evidence.tokens for evidence in seen]), minlength=worlds.VOCAB).tolist()
    wanted = [-math.log((counts[v] + 1) / (sum(counts) + worlds.VOCAB)) for v in fresh.tokens.tolist()]
    close(UnigramSurprisal.fit(profile).score(fresh), wanted, 1e-5)


def test_likelihood_over_windows_and_cusum(seen: list[Evidence], profile: Profile, fresh: Evidence) -> None:
    assert fresh.logits is not None
    nll = fresh.logits.nll
    assert torch.equal(NLLWindow.fit(profile).score(fresh), pool(nll, fresh.prompt, 10, "max"))
    clean = torch.cat([evidence.logits.nll for evidence in seen if evidence.logits is not None])
    wanted = pool(nll, fresh.prompt, 10, "cusum", reference_of(clean))
    close(NLLCusum.fit(profile).score(fresh), wanted, 1e-5)


def test_the_shuffled_decoder_writes_badly_and_needs_a_dictionary(profile: Profile, fresh: Evidence) -> None:
    detector = ShuffledDecoder.fit(profile)
    decoder = worlds.world().decoder.bfloat16()
    assert not torch.equal(detector.rows, decoder)
    assert torch.equal(detector.rows.sort(0).values, decoder.sort(0).values)
    dense = fresh.codes.dense() @ detector.rows.float() + worlds.world().bias
    wanted = (fresh.acts - dense).square().sum(1) / Energy.fit(profile).scale
    close(detector.score(fresh), wanted)
    bare = Profile.from_state(profile.state())
    with pytest.raises(UsageError, match=r"Profile\.empty"):
        ShuffledDecoder.fit(bare)


def test_the_random_dictionary_fires_as_often_as_the_trained_one(profile: Profile) -> None:
    detector = RandomDictionary.fit(profile)
    again = worlds.clean(60, 400)
    projected = (again.acts - detector.mean) @ detector.encoder.float().T
    rates = (projected > detector.limit).double().mean(0)
    wanted = profile.firing_rates()
    spread = (wanted * (1 - wanted) * (1 / profile.tokens + 1 / again.tokens.numel())).sqrt()
    # Tokens of a prompt are independent in this world; 6 rather than 4.5 for the ties of the sample's bfloat16.
    assert bool(((rates - wanted).abs() < 6 * spread + 2 / profile.tokens).all())


def test_code_distances_by_their_definitions(seen: list[Evidence], profile: Profile, fresh: Evidence) -> None:
    def pooled(evidence: Evidence) -> torch.Tensor:
        dense = evidence.codes.dense().double()
        return torch.stack([dense[evidence.prompt == row].mean(0) for row in range(evidence.n_prompts)])

    clean, odd = torch.cat([pooled(evidence) for evidence in seen]), pooled(fresh)
    unit = torch.nn.functional.normalize
    wanted = 1 - (unit(odd) @ unit(clean).T).topk(5, dim=1).values.mean(1)
    close(CodeKNN.fit(profile).score(fresh), wanted, 3e-3)
    covariance = torch.cov(clean.T, correction=0)
    size, vectors = torch.linalg.eigh(covariance)
    kept = len(clean) // 8
    spectrum = size.flip(0).clone()
    spectrum[kept:] = spectrum[kept:].mean()
    inverse = vectors.flip(1) @ torch.diag(1 / spectrum) @ vectors.flip(1).T
    centred = odd - clean.mean(0)
    distance = torch.einsum("pi,ij,pj->p", centred, inverse, centred) / worlds.D_SAE
    close(CodeMahalanobis.fit(profile).score(fresh), distance, 2e-2)
