"""A profile counts right and merges in any order."""

import math

import pytest
import torch

from perimetry.errors import CorruptArtifact, Incompatible, NonFinite, WidthMismatch
from perimetry.sae.base import Codes
from perimetry.shift.base import concatenate
from perimetry.shift.features import token_buckets
from perimetry.shift.profile import Profile
from perimetry.shift.sketch import BottomK, PairCounts

from . import worlds


def assert_same(a: Profile, b: Profile, tolerance: float = 1e-12) -> None:
    one, other = a.state(), b.state()
    assert set(one) == set(other)
    for name, value in one.items():
        if value.dtype == torch.float64:
            torch.testing.assert_close(value, other[name], rtol=tolerance, atol=tolerance, msg=name)
        else:
            assert torch.equal(value, other[name]), name


@pytest.fixture(scope="module")
def parts() -> list[Profile]:
    return [worlds.profile_of(worlds.clean(seed, 30), sample=300) for seed in range(4)]


def test_merging_is_associative_and_commutative(parts: list[Profile]) -> None:
    a, b, c, d = parts
    left = a.merge(b).merge(c).merge(d)
    assert_same(left, d.merge(c.merge(b.merge(a))))
    assert_same(left, a.merge(c).merge(d.merge(b)))
    assert left.sample.keys.numel() == 300


def test_merging_equals_one_pass_whatever_the_batches(parts: list[Profile]) -> None:
    evidence = [worlds.clean(seed, 30) for seed in range(4)]
    merged = parts[0].merge(parts[1]).merge(parts[2]).merge(parts[3])
    assert_same(merged, worlds.profile_of(*evidence, sample=300))
    assert_same(merged, worlds.profile_of(concatenate(evidence), sample=300))
    single = [worlds.select_prompts(e, [row]) for e in reversed(evidence) for row in range(30)]
    assert_same(merged, worlds.profile_of(*single, sample=300))


def test_merging_leaves_its_parts_alone(parts: list[Profile]) -> None:
    before = {name: value.clone() for name, value in parts[0].state().items()}
    joined = parts[0].merge(parts[1])
    joined.update(worlds.clean(9))
    for name, value in parts[0].state().items():
        assert torch.equal(value, before[name]), name


def test_counts_and_moments_equal_a_dense_computation() -> None:
    evidence = worlds.clean(5, 50)
    known, dense = worlds.profile_of(evidence), evidence.codes.dense()
    assert known.tokens == evidence.tokens.numel()
    assert known.prompts == 50
    assert torch.equal(known.sums["fired"], (dense > 0).sum(0))
    assert torch.equal(known.sums["values"].sum(1).long(), (dense > 0).sum(0))
    assert torch.equal(known.unigrams(), torch.bincount(evidence.tokens, minlength=worlds.VOCAB))
    torch.testing.assert_close(known.mean(), evidence.acts.double().mean(0))
    torch.testing.assert_close(known.covariance(), torch.cov(evidence.acts.double().T, correction=0))
    rates = ((dense > 0).sum(0).double() + 1) / (known.tokens + 2)
    torch.testing.assert_close(known.firing_rates(), rates)


def test_pairs_equal_a_loop() -> None:
    evidence = worlds.clean(6, 12)
    pooled = torch.stack([evidence.codes.dense()[evidence.prompt == row].double().mean(0).float() for row in range(12)])
    counts: dict[int, int] = {}
    for row in pooled:
        top = [f for f in row.topk(32).indices.sort().values.tolist() if row[f] > 0]
        for i, a in enumerate(top):
            for b in top[i + 1 :]:
                counts[a * worlds.D_SAE + b] = counts.get(a * worlds.D_SAE + b, 0) + 1
    keys, number = worlds.profile_of(evidence).together.table()
    assert dict(zip(keys.tolist(), number.tolist(), strict=True)) == counts


def test_steps_equal_a_loop() -> None:
    draw = torch.Generator().manual_seed(0)
    evidence = worlds.select_prompts(worlds.clean(6, 12), [3, 1, 4])
    # Prompts of one, two, three and more tokens, since only from three on there is a step.
    prompt = torch.tensor([0, 1, 1, 2, 2, 2, *[3] * (evidence.tokens.numel() - 6)])
    evidence = evidence._replace(prompt=prompt, words=torch.ones(4), acts=torch.randn(len(prompt), 16, generator=draw))
    acts, on = evidence.acts.double(), evidence.codes.dense().double() > 0
    steps = [t for t in range(2, len(prompt)) if prompt[t] == prompt[t - 1] == prompt[t - 2]]
    gram, cross = torch.zeros(2, 16, 16).double(), torch.zeros(worlds.D_SAE, 33).double()
    lag, total = torch.zeros(16, 16).double(), torch.zeros(2, 16).double()
    for t in steps:
        for k in (1, 2):
            gram[k - 1] += torch.outer(acts[t - k], acts[t - k])
            total[k - 1] += acts[t - k]
        lag += torch.outer(acts[t - 1], acts[t - 2])
        cross[on[t]] += torch.cat([acts[t - 1], acts[t - 2], torch.ones(1).double()])
    sums = worlds.profile_of(evidence).sums
    assert int(sums["steps"]) == len(steps) == 1 + len(prompt) - 8
    torch.testing.assert_close(sums["outer"] - sums["edge_outer"], gram)
    torch.testing.assert_close(sums["acts"] - sums["edge_acts"], total)
    torch.testing.assert_close(sums["step_lag"], lag)
    torch.testing.assert_close(sums["step_cross"], cross)


def test_the_sample_of_steps_keeps_what_came_before() -> None:
    evidence = worlds.clean(8, 5)
    rows = worlds.profile_of(evidence).steps.columns
    assert rows["before"].shape[0] == int((evidence.lengths() - 2).sum())
    for before, indices in zip(rows["before"], rows["indices"], strict=True):
        s = int((evidence.acts.bfloat16() == before[:16]).all(1).nonzero()[0])
        assert torch.equal(evidence.acts[s - 1].bfloat16(), before[16:])
        wanted = evidence.codes.dense()[s + 1].nonzero()[:, 0]
        assert indices[indices < worlds.D_SAE].tolist() == wanted.tolist()


def test_state_round_trip_goes_on_counting(parts: list[Profile]) -> None:
    again = Profile.from_state(parts[0].state(), parts[0].dictionary)
    assert_same(again, parts[0])
    assert_same(again.merge(parts[1]), parts[0].merge(parts[1]))
    assert again.dictionary is parts[0].dictionary


def test_a_broken_state_is_refused(parts: list[Profile]) -> None:
    state = parts[0].state()
    del state["sums.fired"]
    with pytest.raises(CorruptArtifact, match="no state of a profile"):
        Profile.from_state(state)


def test_the_sample_is_near_uniform_over_distinct_tokens() -> None:
    evidence = worlds.clean(8, 400)
    known = worlds.profile_of(evidence, evidence, sample=1000)
    assert known.sample.keys.numel() == 1000
    assert torch.unique(known.sample.columns["acts"].float(), dim=0).shape[0] == 1000
    everyone = worlds.profile_of(evidence)
    gap = (known.sample.columns["acts"].double().mean(0) - everyone.mean()).abs()
    spread = everyone.covariance().diagonal().sqrt()
    assert bool((gap < 4.5 * spread / math.sqrt(1000)).all())


def test_the_sample_keeps_the_active_set_of_its_rows() -> None:
    evidence = worlds.clean(8, 5)
    known = worlds.profile_of(evidence)
    rows = known.sample.columns
    for acts, indices, values in zip(rows["acts"], rows["indices"], rows["values"], strict=True):
        t = int((evidence.acts.bfloat16() == acts).all(1).nonzero()[0])
        wanted = evidence.codes.dense()[t]
        assert indices[indices < worlds.D_SAE].tolist() == wanted.nonzero()[:, 0].tolist()
        torch.testing.assert_close(values[indices < worlds.D_SAE], wanted[wanted > 0].bfloat16())


def test_profiles_of_other_settings_do_not_merge(parts: list[Profile]) -> None:
    other = Profile.empty(worlds.D_MODEL, worlds.D_SAE, worlds.VOCAB, 8, sample=300, prompts=256)
    with pytest.raises(Incompatible, match="other settings"):
        parts[0].merge(other)
    counted = worlds.profile_of(unigrams=torch.ones(worlds.VOCAB, dtype=torch.int64), sample=300)
    with pytest.raises(Incompatible, match="same unigrams"):
        parts[0].merge(counted)


def test_wrong_evidence_is_refused() -> None:
    evidence, known = worlds.clean(1, 3), worlds.profile_of()
    with pytest.raises(WidthMismatch, match="width 16 with 48 latents, but the evidence has 15 and 48"):
        known.update(evidence._replace(acts=evidence.acts[:, 1:], reconstruction=evidence.reconstruction[:, 1:]))
    with pytest.raises(WidthMismatch, match="has 16 and 50"):
        known.update(evidence._replace(codes=Codes(evidence.codes.indices, evidence.codes.values, 50)))
    with pytest.raises(WidthMismatch, match="80 token ids, but the evidence has id 80"):
        known.update(evidence._replace(tokens=evidence.tokens.clone().fill_(80)))
    with pytest.raises(NonFinite, match="NaN or infinity"):
        known.update(evidence._replace(acts=evidence.acts * torch.nan))


def test_token_buckets_give_frequent_tokens_their_own() -> None:
    counts = torch.cat([torch.arange(1000, 808, -1), torch.ones(800, dtype=torch.int64)])
    bucket = token_buckets(counts)
    assert bucket[:192].tolist() == list(range(192))
    assert int(bucket.min()) == 0
    assert int(bucket.max()) == 255
    mass = torch.zeros(256).index_add_(0, bucket, counts.float() + 1)[192:]
    assert float(mass.max() / mass.min()) < 1.2
    assert token_buckets(torch.zeros(600, dtype=torch.int64)).tolist() == [i % 256 for i in range(600)]


def test_given_unigrams_replace_its_own() -> None:
    given = torch.arange(1, worlds.VOCAB + 1)
    known = worlds.profile_of(worlds.clean(1), unigrams=given)
    assert torch.equal(known.unigrams(), given)


def test_a_sample_keeps_the_lowest_keys_in_whatever_pieces_they_come() -> None:
    keys = torch.randperm(5000, generator=torch.Generator().manual_seed(1))
    for size in (1, 37, 700, 5000):
        sample = BottomK(100, keys[:0], {"x": keys[:0]}, {})
        for piece in torch.cat([keys, keys[:500]]).split(size):
            sample.offer(piece, {"x": -piece})
        assert sample.keys.tolist() == list(range(100))
        assert torch.equal(sample.columns["x"], -sample.keys)


def test_pair_counts_that_wait_are_not_lost() -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randint(0, 700, (2, 600_000), generator=draw)
    pieces = PairCounts(700)
    for x, y in zip(a.split(50_000), b.split(50_000), strict=True):
        pieces.add(x, y)
    keys, counts = pieces.table()
    wanted_keys, wanted = torch.unique(a * 700 + b, return_counts=True)
    assert torch.equal(keys, wanted_keys)
    assert torch.equal(counts, wanted)
