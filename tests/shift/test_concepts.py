"""Concept scores against naive loops over dense codes."""

import math

import pytest
import torch

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


def test_transition_equals_a_loop(seen: list[Evidence], profile: Profile, fresh: Evidence) -> None:
    def steps(evidence: Evidence) -> list[tuple[list[int], list[int] | None]]:
        dense = evidence.codes.dense()
        top = [[f for f in row.topk(4).indices.tolist() if row[f] > 0] for row in dense]
        same = [t > 0 and bool(evidence.prompt[t] == evidence.prompt[t - 1]) for t in range(len(top))]
        return [(top[t], top[t - 1] if same[t] else None) for t in range(len(top))]

    count: dict[tuple[int, int], int] = {}
    for evidence in seen:
        for now, before in steps(evidence):
            for a in before or []:
                for b in now:
                    count[a, b] = count.get((a, b), 0) + 1
    total = sum(count.values())
    source = [sum(n for (a, _), n in count.items() if a == f) for f in range(worlds.D_SAE)]
    share = [
        (sum(n for (_, b), n in count.items() if b == f) + 1) / (total + worlds.D_SAE) for f in range(worlds.D_SAE)
    ]
    got = Transition.fit(profile).score(fresh)
    for t, (now, before) in enumerate(steps(fresh)):
        if not now:
            wanted = 0.0
        elif not before:
            wanted = -sum(math.log(share[b]) for b in now) / len(now)
        else:
            terms = [-math.log((count.get((a, b), 0) + share[b]) / (source[a] + 1)) for a in before for b in now]
            wanted = sum(terms) / len(terms)
        assert float(got[t]) == pytest.approx(wanted, rel=1e-4, abs=1e-5)
