"""Concept scores against naive loops over dense codes."""

import math

import numpy as np
import pytest
import torch

from perimetry.errors import TooFewSamples
from perimetry.shift.base import Evidence
from perimetry.shift.combination import Coactivation, Transition
from perimetry.shift.concepts import L0, Bernoulli, FallaciousF1, Novelty, Surprise
from perimetry.shift.energy import Energy
from perimetry.shift.excess import L0Excess
from perimetry.shift.profile import Profile

from . import worlds


@pytest.fixture(scope="module")
def seen() -> list[Evidence]:
    return [worlds.clean(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def profile(seen: list[Evidence]) -> Profile:
    return worlds.profile_of(*seen)


@pytest.fixture(scope="module")
def fresh() -> Evidence:
    return worlds.shifted(50, 5)


def rates(seen: list[Evidence]) -> list[float]:
    on = torch.cat([evidence.codes.dense() > 0 for evidence in seen])
    return [(int(column.sum()) + 1) / (on.shape[0] + 2) for column in on.T]


def test_surprise_bernoulli_energy_and_counts_equal_a_loop(
    seen: list[Evidence], profile: Profile, fresh: Evidence
) -> None:
    p, dense = rates(seen), fresh.codes.dense().double()
    errors = torch.cat([(e.acts - e.reconstruction).square().sum(1) for e in seen]).double()
    rare = sum(p) / len(p) / 10
    got = {cls.name: cls.fit(profile).score(fresh) for cls in (L0, Surprise, Bernoulli, Energy, FallaciousF1)}
    for t in range(0, dense.shape[0], 7):
        active = [f for f in range(worlds.D_SAE) if dense[t, f] > 0]
        surprise = sum(math.log((1 - p[f]) / p[f]) for f in active)
        likelihood = -sum(math.log(p[f]) if f in active else math.log(1 - p[f]) for f in range(worlds.D_SAE))
        error = float((fresh.acts[t] - fresh.reconstruction[t]).double().square().sum())
        concepts = sum(float(dense[t, f]) * math.log((1 - p[f]) / p[f]) for f in active)
        assert float(got["l0"][t]) == len(active)
        assert float(got["surprise"][t]) == pytest.approx(surprise, rel=1e-5, abs=1e-5)
        assert float(got["bernoulli"][t]) == pytest.approx(likelihood, rel=1e-5)
        # The median comes from bins of 2.2 %.
        assert float(got["energy"][t]) == pytest.approx(error / float(errors.median()) + concepts, rel=0.023, abs=1e-4)
        assert float(got["fallacious_f1"][t]) == sum(p[f] < rare for f in active)


def test_a_concept_never_seen_has_a_finite_surprise_above_all_others() -> None:
    evidence = worlds.clean(1)
    silent = evidence._replace(
        codes=evidence.codes._replace(values=evidence.codes.values * (evidence.codes.indices != 5))
    )
    weights = Surprise.fit(worlds.profile_of(silent)).weights
    assert float(weights[5]) == float(weights.max()) == pytest.approx(math.log(evidence.tokens.numel() + 1))


def test_novelty_counts_values_above_the_clean_quantile(seen: list[Evidence], profile: Profile) -> None:
    detector = Novelty.fit(profile)
    dense = torch.cat([evidence.codes.dense() for evidence in seen])
    exact = torch.quantile(dense, 0.999, dim=0)
    common = (dense > 0).float().mean(0) > 0.02
    assert bool(((detector.limit - exact).abs() <= 0.2 * exact + 1e-6)[common].all())
    again = worlds.clean(60, 200)
    share = float(detector.score(again).sum()) / again.tokens.numel() / worlds.D_SAE
    assert share < 0.004


def test_l0_excess_equals_least_squares(seen: list[Evidence], profile: Profile, fresh: Evidence) -> None:
    tokens = torch.cat([evidence.tokens for evidence in seen])
    counts = torch.bincount(tokens, minlength=worlds.VOCAB).double()
    log = ((counts + 1) / (counts.sum() + worlds.VOCAB)).log()

    def design(evidence: Evidence) -> torch.Tensor:
        place = (1 + evidence.positions.double()).log()
        norm = evidence.acts.double().norm(dim=1).log()
        f = log[evidence.tokens]
        return torch.stack([torch.ones_like(place), place, place**2, norm, norm**2, f, f**2], 1)

    x = torch.cat([design(evidence) for evidence in seen])
    y = torch.cat([evidence.codes.count() for evidence in seen]).double()
    weights = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    wanted = fresh.codes.count().double() - design(fresh) @ weights
    torch.testing.assert_close(L0Excess.fit(profile).score(fresh), wanted.float(), rtol=1e-3, atol=1e-3)
    on_seen = torch.cat([L0Excess.fit(profile).score(evidence) for evidence in seen])
    assert abs(float(on_seen.mean())) < 1e-3


def test_l0_excess_is_the_same_whatever_gives_the_frequencies(seen: list[Evidence], profile: Profile) -> None:
    counts = torch.bincount(torch.cat([e.tokens for e in seen]), minlength=worlds.VOCAB)
    told = worlds.profile_of(*seen, unigrams=counts)
    torch.testing.assert_close(L0Excess.fit(told).weights, L0Excess.fit(profile).weights)


def test_coactivation_equals_a_loop(seen: list[Evidence], profile: Profile, fresh: Evidence) -> None:
    def tops(evidence: Evidence) -> list[list[int]]:
        out = []
        for row in range(evidence.n_prompts):
            pooled = evidence.codes.dense()[evidence.prompt == row].double().mean(0).float()
            out.append(sorted(f for f in pooled.topk(32).indices.tolist() if pooled[f] > 0))
        return out

    clean = [top for evidence in seen for top in tops(evidence)]
    number = len(clean)
    single = [(sum(f in top for top in clean) + 1) / (number + 2) for f in range(worlds.D_SAE)]
    got = Coactivation.fit(profile).score(fresh)
    for row, top in enumerate(tops(fresh)):
        terms = []
        for i, a in enumerate(top):
            for b in top[i + 1 :]:
                both = sum(a in other and b in other for other in clean)
                terms.append(-math.log((both + single[a] * single[b]) / (number + 1)))
        assert float(got[row]) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_transition_equals_a_naive_ridge(seen: list[Evidence], profile: Profile, fresh: Evidence) -> None:
    acts = np.concatenate([e.acts.double().numpy() for e in seen])
    mean, scale = acts.mean(0), np.sqrt(acts.var(0).mean())

    def steps(evidence: Evidence) -> tuple[np.ndarray, np.ndarray, list[int]]:
        x, prompt = (evidence.acts.double().numpy() - mean) / scale, evidence.prompt.tolist()
        at = [t for t in range(2, len(prompt)) if prompt[t] == prompt[t - 1] == prompt[t - 2]]
        features = np.array([np.concatenate([x[t - 1], x[t - 2], [1.0]]) for t in at])
        return features, (evidence.codes.dense() > 0).double().numpy()[at], at

    def share(chance: np.ndarray, on: np.ndarray) -> np.ndarray:
        return ((chance < 0.01) * on).sum(1) / np.maximum(on.sum(1), 1)

    parts = [steps(evidence) for evidence in seen]
    g, on = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    weights = np.linalg.solve(g.T @ g + 1e-3 * len(g) * np.eye(g.shape[1]), g.T @ on)
    detector = Transition.fit(profile)
    rounded = detector.weights.T.double().numpy()
    # Half precision: eleven bits, and steps of 6e-8 near zero.
    np.testing.assert_allclose(rounded, weights, rtol=2**-11, atol=1e-7)
    features, active, at = steps(fresh)
    wanted = np.full(fresh.tokens.numel(), float(detector.usual))
    wanted[at] = share(features @ rounded, active)
    assert (share(features @ weights, active) == wanted[at]).mean() > 0.97, "rounding moves hardly a decision"
    assert 0.05 < wanted[at].mean() < 0.95
    silent = (fresh.codes.count() == 0).numpy()
    wanted[silent] = 0
    np.testing.assert_allclose(detector.score(fresh).numpy(), wanted, atol=1e-6)
    # The neutral value is a mean over up to 2,048 clean steps, kept in bfloat16.
    usual = np.mean(np.concatenate([share(p[0] @ weights, p[1]) for p in parts]))
    assert float(detector.usual) == pytest.approx(usual, abs=0.02)
    assert 0 < float(detector.usual) < 1


def test_transition_needs_prompts_of_three_tokens(seen: list[Evidence]) -> None:
    short = seen[0]._replace(prompt=torch.arange(seen[0].tokens.numel()) // 2)
    short = short._replace(words=torch.ones(int(short.prompt[-1]) + 1))
    with pytest.raises(TooFewSamples, match="clean prompts of three scorable tokens"):
        Transition.fit(worlds.profile_of(short))


def test_transition_of_short_and_silent_prompts(seen: list[Evidence], profile: Profile) -> None:
    one = worlds.select_prompts(seen[0], [0])
    one = one._replace(**{n: getattr(one, n)[:2] for n in ("acts", "reconstruction", "tokens", "positions", "prompt")})
    one = one._replace(codes=one.codes.select(torch.arange(2)), logits=None)
    detector = Transition.fit(profile)
    torch.testing.assert_close(detector.score(one), detector.usual.expand(2))
    silent = worlds.select_prompts(seen[0], [0, 1])
    silent = silent._replace(codes=silent.codes._replace(values=torch.zeros_like(silent.codes.values)))
    assert not bool(detector.score(silent).any())
