"""The smallest of several p-values made a p-value again: exact on every bag, uniform on simulated prompts."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perimetry.errors import CorruptArtifact, NonFinite, TooFewSamples, UsageError
from perimetry.runtime import generator
from perimetry.shift.conformal import Calibration, conformal_p
from perimetry.shift.joint import JointCalibration, Yardstick, least_p


def by_definition(bag: list[tuple[float, ...]], which: int) -> float:
    """The combined p-value of one prompt against the rest of the bag, written as the docstring says it."""
    size, taps = len(bag), len(bag[0])

    def ranks(j: int) -> list[int]:
        return sorted(sum(bag[i][k] >= bag[j][k] for i in range(size)) for k in range(taps))

    mine = ranks(which)
    return sum(ranks(j) <= mine for j in range(size)) / size


def judged(bag: torch.Tensor) -> list[float]:
    """Each prompt of the bag against all others."""
    every = range(len(bag))
    return [float(least_p(bag[[i for i in every if i != j]], bag[j : j + 1]).p[0]) for j in every]


@given(
    st.integers(1, 4).flatmap(
        lambda taps: st.lists(st.tuples(*[st.integers(0, 4).map(float)] * taps), min_size=2, max_size=9)
    )
)
def test_on_any_bag_no_rate_is_exceeded(bag: list[tuple[float, ...]]) -> None:
    """Validity itself: of n + 1 prompts in any bag, ties or none, at most k get a p-value of at most k / (n + 1).

    An exchangeable draw is a bag in random order, so the new prompt is each of them with the same chance.
    """
    found = judged(torch.tensor(bag))
    assert found == pytest.approx([by_definition(bag, j) for j in range(len(bag))])
    for k in range(1, len(bag) + 1):
        assert sum(p <= k / len(bag) + 1e-9 for p in found) <= k


def test_second_and_third_ranks_break_the_ties_of_the_minimum() -> None:
    """Three taps have three leaders; the p-values of a bag are nearly the grid 1 / (n + 1) ... 1 all the same."""
    bag = torch.rand(12, 3, generator=generator(0))
    values = sorted(judged(bag))
    assert values[0] <= 2 / 12
    assert len(set(values)) >= 10


def test_one_tap_is_the_usual_p_value() -> None:
    draw = generator(1)
    clean, new = torch.randn(50, 1, generator=draw), torch.randn(200, 1, generator=draw)
    found = least_p(clean, new)
    usual = conformal_p(clean[:, 0].sort().values, new[:, 0])
    assert torch.equal(found.p, usual)
    assert torch.equal(found.least, usual)


def test_the_minimum_is_that_of_the_taps_p_values() -> None:
    draw = generator(2)
    clean, new = (
        torch.randn(80, 3, generator=draw).round(decimals=1),
        torch.randn(60, 3, generator=draw).round(decimals=1),
    )
    taps = torch.stack([conformal_p(clean[:, k].sort().values, new[:, k]) for k in range(3)], 1)
    assert torch.equal(least_p(clean, new).least, taps.amin(1))


def draws(seed: int, sets: int, n: int, new: int, noise: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Calibration and new prompts whose three taps share most of their score, each in its own units, one of them coarse."""
    draw = generator(seed)
    common = torch.randn(sets, n + new, 1, generator=draw)
    scores = common + noise * torch.randn(sets, n + new, 3, generator=draw)
    scores[..., 1] = (3 * scores[..., 1]).exp()
    scores[..., 2] = scores[..., 2].round(decimals=2)
    return [(s[:n], s[n:]) for s in scores]


@pytest.mark.parametrize(("noise", "seed"), [(0.3, 0), (3.0, 1)], ids=["strongly correlated", "hardly correlated"])
def test_p_values_of_exchangeable_prompts_are_uniform(noise: float, seed: int) -> None:
    """1e5 prompts, 100 against each of 1000 calibration sets; means of sets are independent, so their spread is the yardstick."""
    n, sets, new = 99, 1000, 100
    found = [least_p(clean, fresh) for clean, fresh in draws(seed, sets, n, new, noise)]
    p, least = torch.stack([f.p for f in found]), torch.stack([f.least for f in found])
    assert p.numel() == 100_000
    for alpha in (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.9):
        by_set = (p <= alpha + 1e-12).double().mean(1)
        error = float(by_set.std()) / math.sqrt(sets)
        assert float(by_set.mean()) <= alpha + 4 * error, "never above the rate"
        assert float(by_set.mean()) >= alpha - 0.5 / (n + 1) - 4 * error, "nor far below, what ties cost aside"
        assert float((least <= alpha + 1e-12).double().mean()) > 1.1 * alpha or alpha > 0.25
    assert float(p.mean()) == pytest.approx((n + 2) / (2 * (n + 1)), abs=0.01)
    naive = float((least <= 0.05 + 1e-12).double().mean())
    assert naive > (0.06 if noise < 1 else 0.1), "the minimum alone is no p-value, and this test would see it"


def test_a_shift_in_one_tap_alone_is_found() -> None:
    draw = generator(4)
    clean, moved = torch.randn(200, 3, generator=draw), torch.randn(300, 3, generator=draw)
    moved[:, 1] += 4
    assert float((least_p(clean, moved).p <= 0.05).double().mean()) > 0.8
    assert float((least_p(clean[:, :1], moved[:, :1]).p <= 0.05).double().mean()) < 0.12


def test_the_order_of_prompts_and_taps_does_not_matter() -> None:
    draw = generator(5)
    clean, new = torch.randn(40, 3, generator=draw), torch.randn(30, 3, generator=draw)
    plain = least_p(clean, new).p
    assert torch.equal(plain, least_p(clean[torch.randperm(40, generator=draw)], new).p)
    assert torch.equal(plain.flip(0), least_p(clean, new.flip(0)).p)
    assert torch.equal(plain, torch.cat([least_p(clean, one[None]).p for one in new]))
    for order in itertools.permutations(range(3)):
        assert torch.equal(plain, least_p(clean[:, list(order)], new[:, list(order)]).p)


def test_many_prompts_are_judged_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = generator(6)
    clean, new = torch.randn(40, 2, generator=draw), torch.randn(30, 2, generator=draw)
    whole = least_p(clean, new).p
    monkeypatch.setattr("perimetry.shift.joint.CHUNK", 7 * 80)
    assert torch.equal(whole, least_p(clean, new).p)


def test_another_number_of_taps_is_refused() -> None:
    with pytest.raises(UsageError, match="the prompts have scores of 3 taps, the calibration of 2"):
        least_p(torch.zeros(4, 2), torch.zeros(1, 3))


PLAIN = Yardstick(torch.zeros(2), torch.ones(2))


def two_groups() -> tuple[JointCalibration, torch.Tensor, torch.Tensor]:
    draw = generator(7)
    scores, lengths = torch.randn(120, 2, generator=draw), torch.randint(5, 60, (120,), generator=draw).float()
    # Long prompts score higher, as sums over tokens would.
    scores += lengths[:, None] / 10
    return JointCalibration.fit(scores, lengths, PLAIN, groups=2, minimum=20), scores, lengths


def test_groups_are_those_of_a_single_meter() -> None:
    joint, scores, lengths = two_groups()
    single = Calibration.fit({"a": scores[:, 0], "b": scores[:, 1]}, lengths, groups=2, minimum=20)
    new, size = torch.tensor([[4.5, 4.5], [4.5, 4.5], [9.0, 0.0]]), torch.tensor([6.0, 55.0, 30.0])
    found = joint.p_values(new, size)
    taps = [single.p_values(name, new[:, k], size) for k, name in enumerate("ab")]
    assert found.group == taps[0].group
    assert torch.equal(found.fallback, taps[0].fallback)
    assert torch.equal(found.least, torch.stack([t.p for t in taps]).amin(0))
    assert float(found.p[0]) < 0.15 < 0.3 < float(found.p[1]), "the same scores are high for a short prompt only"
    members = joint.groups.index(lengths) == 0
    assert torch.equal(found.p[:1], least_p(scores[members], new[:1]).p)


def test_a_small_group_uses_all_prompts_and_says_so() -> None:
    _, scores, lengths = two_groups()
    joint = JointCalibration.fit(scores, lengths, PLAIN, groups=2, minimum=100)
    found = joint.p_values(scores[:5] + 1, lengths[:5])
    assert found.fallback.all()
    assert torch.equal(found.p, least_p(scores, scores[:5] + 1).p)
    assert joint.sizes() == {"pooled": 120}


def test_sizes_of_groups() -> None:
    joint, _, _ = two_groups()
    sizes = joint.sizes()
    assert sizes.pop("pooled") == sum(sizes.values()) == 120
    assert len(sizes) == 2


def test_no_prompts_have_no_p_values() -> None:
    joint, _, _ = two_groups()
    assert joint.p_values(torch.zeros(0, 2), torch.zeros(0)).p.shape == (0,)


def test_state_and_back() -> None:
    joint, scores, lengths = two_groups()
    again = JointCalibration.from_state(joint.state())
    assert torch.equal(again.p_values(scores, lengths).p, joint.p_values(scores, lengths).p)
    assert list(again.columns(["x", "y"])) == ["x", "y"]
    assert torch.equal(again.columns(["x", "y"])["y"], scores[:, 1])


@pytest.mark.parametrize("key", ["scores", "lengths", "edges", "minimum", "mean", "deviation"])
def test_a_state_that_lacks_something_is_refused(key: str) -> None:
    joint, _, _ = two_groups()
    state = joint.state()
    state.pop(key)
    with pytest.raises(CorruptArtifact, match="no state of a joint calibration"):
        JointCalibration.from_state(state)


def test_a_state_that_contradicts_itself_is_refused() -> None:
    joint, _, _ = two_groups()
    with pytest.raises(CorruptArtifact, match="contradicts itself"):
        JointCalibration.from_state(joint.state() | {"lengths": torch.ones(3)})


def test_scores_that_are_no_numbers_are_refused() -> None:
    joint, scores, lengths = two_groups()
    scores = scores.clone()
    scores[3, 1] = torch.nan
    with pytest.raises(NonFinite, match="the score of a tap holds NaN"):
        joint.p_values(scores, lengths)
    with pytest.raises(NonFinite):
        JointCalibration.fit(scores, lengths, PLAIN)
    with pytest.raises(TooFewSamples, match="at least 2, got 1"):
        JointCalibration.fit(scores[:1], lengths[:1], PLAIN)


def test_the_yardstick_makes_taps_comparable() -> None:
    draw = generator(8)
    scores = torch.randn(500, 2, generator=draw) * torch.tensor([1.0, 50.0]) + torch.tensor([3.0, -7.0])
    stick = Yardstick.of(scores)
    high = stick.height(scores)
    assert torch.equal(high.flip(0), stick.height(scores.flip(0)))
    assert torch.equal(high[:1], stick.height(scores[:1])), "a function of each prompt alone"
    standard = (scores - scores.mean(0)) / scores.std(0, correction=0)
    torch.testing.assert_close(high, standard.amax(1), rtol=1e-4, atol=1e-4)
    flat = Yardstick.of(torch.ones(4, 2))
    assert flat.height(torch.tensor([[3.0, 2.0]])).tolist() == [2.0]
