"""F2 against a brute-force search, and against the planted false concepts."""

import pytest
import torch

from perimetry.errors import TooFewSamples
from perimetry.shift.context import FallaciousF2
from perimetry.shift.profile import Profile

from . import worlds


@pytest.mark.parametrize("kernels", [True, False])
def test_equals_brute_force(kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernels:
        monkeypatch.setattr("perimetry.sae.steps.native.usable", lambda *_: False)
    profile = worlds.profile_of(*(worlds.clean(seed) for seed in range(4)))
    fresh = worlds.shifted(50, 8)
    detector = FallaciousF2.fit(profile)
    rows = profile.sample.columns
    # All directions are kept in so small a world: the projection is a rotation.
    mean = profile.mean().float()
    clean = torch.nn.functional.normalize(rows["acts"].float() - mean, dim=1)
    query = torch.nn.functional.normalize(fresh.acts - mean, dim=1)
    near = (query @ clean.T).topk(16, dim=1).indices
    p = profile.firing_rates()
    rare = float(p.mean()) / 10
    dense, got = fresh.codes.dense(), detector.score(fresh)
    for t in range(dense.shape[0]):
        known = set(rows["indices"][near[t]].flatten().tolist())
        bucket = int(profile.buckets[fresh.tokens[t]])
        seen = int(profile.sums["bucket_tokens"][bucket])
        within = (profile.sums["bucket_fired"][bucket] + 20 * p) / (seen + 20)
        active = dense[t].nonzero()[:, 0].tolist()
        assert float(got[t]) == sum(f not in known or float(within[f]) < rare for f in active)


def test_a_planted_concept_is_found_and_a_supported_one_is_not() -> None:
    profile = worlds.profile_of(*(worlds.clean(seed) for seed in range(8)))
    detector, evidence = FallaciousF2.fit(profile), worlds.clean(60, 30)
    dense = evidence.codes.dense()
    rare = worlds.D_SAE - 1
    dense[:, rare] = 1.0
    values, indices = dense.topk(worlds.SLOTS, dim=1)
    planted = evidence._replace(codes=evidence.codes._replace(indices=indices, values=values))
    everything = torch.arange(evidence.tokens.numel())
    slots = detector.false_slots(planted, everything)
    assert float(slots[indices == rare].float().mean()) > 0.95
    assert float(slots[(indices != rare) & (values > 0)].float().mean()) < 0.15
    assert bool((detector.score(planted) - detector.score(evidence) >= 0).all())


def test_too_little_clean_text_is_refused() -> None:
    profile = Profile.empty(worlds.D_MODEL, worlds.D_SAE, worlds.VOCAB, 0)
    with pytest.raises(TooFewSamples, match="needs 16 clean tokens and the profile has seen 0"):
        FallaciousF2.fit(profile)
