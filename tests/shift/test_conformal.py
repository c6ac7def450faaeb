"""P-values are valid, thresholds raise the false alarms that they print, groups hold under a shifted mix."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from scipy import stats

from perimetry.errors import CorruptArtifact, NonFinite, TooFewSamples, UnknownName, UsageError
from perimetry.measures.stats import ks_uniform
from perimetry.shift.conformal import (
    Calibration,
    LengthGroups,
    conformal_p,
    false_alarm_interval,
    threshold,
)

ALPHAS = (0.01, 0.05, 0.1)
numbers = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40)


def simulate(n: int, draws: int, seed: int, *, ties: bool = False, two_sided: bool = False) -> torch.Tensor:
    """P-values of single exchangeable test scores, each with a calibration set of its own."""
    draw = torch.Generator().manual_seed(seed)
    scores = torch.rand(draws, n + 1, generator=draw, dtype=torch.float64)
    scores = (scores * 4).floor() if ties else scores
    above = (scores[:, :n] >= scores[:, n:]).sum(1)
    below = (scores[:, :n] <= scores[:, n:]).sum(1)
    # The same rule, vectorised over calibration sets; its agreement with `conformal_p` is tested below.
    p = (1 + above) / (n + 1)
    return torch.minimum(p, (1 + below) / (n + 1)).mul(2).clamp_max(1) if two_sided else p


@settings(deadline=None, max_examples=100)
@given(numbers, numbers)
def test_equals_the_definition(calibration: list[float], scores: list[float]) -> None:
    ranked, n = torch.tensor(calibration).sort().values, len(calibration)
    upper = [(1 + sum(c >= s for c in calibration)) / (n + 1) for s in scores]
    lower = [(1 + sum(c <= s for c in calibration)) / (n + 1) for s in scores]
    torch.testing.assert_close(conformal_p(ranked, torch.tensor(scores)), torch.tensor(upper, dtype=torch.float64))
    both = torch.tensor([min(1.0, 2 * min(u, v)) for u, v in zip(upper, lower, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(conformal_p(ranked, torch.tensor(scores), two_sided=True), both)


@settings(deadline=None, max_examples=100)
@given(numbers, numbers, st.sampled_from([0.01, 0.05, 0.1, 0.3, 0.5]))
def test_range_monotone_and_threshold(calibration: list[float], scores: list[float], alpha: float) -> None:
    ranked, rising = torch.tensor(calibration).sort().values, torch.tensor(scores).sort().values
    p = conformal_p(ranked, rising)
    assert bool((p >= 1 / (len(calibration) + 1)).all())
    assert bool((p <= 1).all())
    assert bool((p.diff() <= 0).all())
    flagged = p <= alpha
    assert torch.equal(flagged, rising > threshold(ranked, alpha))


@pytest.mark.parametrize("n", [19, 99, 200, 1000])
def test_validity_on_exchangeable_scores(n: int) -> None:
    draws = 100_000 if n < 1000 else 20_000
    p = simulate(n, draws, n)
    for alpha in ALPHAS:
        exact = math.floor(alpha * (n + 1) + 1e-9) / (n + 1)
        error = 4.5 * math.sqrt(exact * (1 - exact) / draws) + 1e-12
        assert abs(float((p <= alpha + 1e-12).double().mean()) - exact) <= error


@pytest.mark.parametrize(("ties", "two_sided"), [(True, False), (False, True), (True, True)])
def test_validity_with_ties_and_two_sides(ties: bool, two_sided: bool) -> None:
    p = simulate(99, 100_000, 3, ties=ties, two_sided=two_sided)
    for alpha in ALPHAS:
        assert float((p <= alpha + 1e-12).double().mean()) <= alpha + 4.5 * math.sqrt(alpha * (1 - alpha) / 100_000)


@pytest.mark.parametrize("n", [19, 99])
def test_a_hundred_thousand_simulated_p_values_are_uniform(n: int) -> None:
    """Each has a calibration set of its own. They lie on a grid; spread over its cells they are uniform exactly."""
    p = simulate(n, 100_000, n + 1)
    spread = p - torch.rand(p.shape, generator=torch.Generator().manual_seed(n), dtype=torch.float64) / (n + 1)
    found = ks_uniform(spread)
    assert found.p_value > 1e-3
    assert found.statistic < 0.007
    # The test sees a rule that is wrong by one place.
    assert ks_uniform(spread - 1 / (n + 1)).p_value < 1e-9


def test_two_sided_catches_low_scores() -> None:
    ranked = torch.arange(100.0)
    assert float(conformal_p(ranked, torch.tensor([-1.0]))) == 1.0
    assert float(conformal_p(ranked, torch.tensor([-1.0]), two_sided=True)) == pytest.approx(2 / 101)


@pytest.mark.parametrize("n_test", [None, 200])
def test_false_alarm_interval_covers(n_test: int | None) -> None:
    draw, n, alpha, trials = torch.Generator().manual_seed(5), 200, 0.05, 4000
    calibration = torch.rand(trials, n, generator=draw, dtype=torch.float64).sort(1).values
    limit = calibration[:, n - math.floor(alpha * (n + 1))]
    if n_test is None:
        realised = 1 - limit
    else:
        realised = (torch.rand(trials, n_test, generator=draw, dtype=torch.float64) > limit[:, None]).double().mean(1)
    alarms = false_alarm_interval(alpha, n, n_test)
    inside = ((realised >= alarms.low - 1e-12) & (realised <= alarms.high + 1e-12)).double().mean()
    assert (0.93 if n_test is None else 0.935) <= float(inside) <= (0.97 if n_test is None else 0.99)
    assert float(realised.mean()) == pytest.approx(alarms.expected, abs=4.5 * float(realised.std()) / trials**0.5)
    if n_test is None:
        assert float(realised.std()) == pytest.approx(alarms.standard_error, rel=0.06)
        law = stats.beta(10, 191)
        assert (alarms.low, alarms.high) == pytest.approx((law.ppf(0.025), law.ppf(0.975)))


def test_false_alarm_interval_at_its_edges() -> None:
    assert false_alarm_interval(0.01, 50)[:4] == (0.0, pytest.approx(math.sqrt(0.01 * 0.99 / 52)), 0.0, 0.0)
    assert threshold(torch.arange(50.0), 0.01) == math.inf
    with pytest.raises(UsageError, match=r"outside \(0, 1\)"):
        false_alarm_interval(1.0, 50)
    with pytest.raises(TooFewSamples, match="there are none"):
        false_alarm_interval(0.1, 0)


def long_and_short(draw: torch.Generator, prompts: int, share_long: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores whose law depends on the length: pooled thresholds go wrong when the mix of lengths changes."""
    long = torch.rand(prompts, generator=draw) < share_long
    lengths = torch.where(long, 100.0, 20.0)
    scores = torch.randn(prompts, generator=draw) * torch.where(long, 0.5, 1.0) + torch.where(long, 2.0, 0.0)
    return scores, lengths


def test_groups_stay_valid_under_a_shifted_mix() -> None:
    draw = torch.Generator().manual_seed(0)
    scores, lengths = long_and_short(draw, 20_000, 0.5)
    fitted = Calibration.fit({"s": scores}, lengths + torch.rand(20_000, generator=draw).mul(15).floor())
    fresh, length = long_and_short(draw, 20_000, 0.9)
    got = fitted.p_values("s", fresh, length)
    assert not bool(got.fallback.any())
    for size in (20.0, 100.0):
        rate = float((got.p[length == size] <= 0.05).double().mean())
        rows = int((length == size).sum())
        assert abs(rate - 0.05) < 4.5 * math.sqrt(0.05 * 0.95 * (1 / rows + 1 / 4000))
    pooled = conformal_p(scores.sort().values, fresh)
    assert float((pooled <= 0.05).double().mean()) > 0.07


def test_p_values_are_uniform_in_each_group() -> None:
    draw = torch.Generator().manual_seed(1)
    lengths = torch.randint(5, 200, (8000,), generator=draw).float()
    scores = torch.randn(8000, generator=draw) + lengths / 50
    fitted = Calibration.fit({"s": scores[:4000]}, lengths[:4000])
    got = fitted.p_values("s", scores[4000:], lengths[4000:])
    for label in fitted.groups.labels:
        rows = torch.tensor([group == label for group in got.group])
        # Both samples vary: the effective size of the comparison is half of each.
        assert ks_uniform(got.p[rows][::2]).p_value > 1e-4


def test_simulated_p_values_are_uniform_in_each_group() -> None:
    """400 calibrations of 250 prompts each, whose scores depend on their lengths: 100,000 p-values by their groups."""
    draw = torch.Generator().manual_seed(6)
    found: dict[str, list[torch.Tensor]] = {}
    for _ in range(400):
        lengths = torch.cat([torch.full((250,), 20.0), torch.full((250,), 80.0)])
        scores = torch.randn(500, generator=draw) * (lengths / 20).sqrt() + lengths / 10
        fitted = Calibration.fit({"s": scores[::2]}, lengths[::2], groups=2)
        # One test prompt a group and calibration keeps p-values independent; the others come with their own.
        got = fitted.p_values("s", scores[1::2], lengths[1::2])
        for group in dict.fromkeys(got.group):
            rows = torch.tensor([g == group for g in got.group])
            found.setdefault(group, []).append(got.p[rows])
    assert len(found) == 2
    for per_calibration in found.values():
        table = torch.stack(per_calibration)
        assert table.numel() == 50_000
        first = table[:, 0] - torch.rand(400, generator=draw, dtype=torch.float64) / 126
        assert ks_uniform(first).p_value > 1e-3
        # The mean over one calibration varies; its mean over 400 is that of the grid.
        means = table.mean(1)
        assert abs(float(means.mean()) - 127 / 252) < 4.5 * float(means.std()) / 20


def test_a_small_group_falls_back_and_says_so() -> None:
    draw = torch.Generator().manual_seed(2)
    lengths = torch.cat([torch.full((300,), 10.0), torch.full((300,), 50.0)])
    strata = ["en"] * 590 + ["de"] * 10
    fitted = Calibration.fit({"s": torch.randn(600, generator=draw)}, lengths, strata=strata)
    got = fitted.p_values("s", torch.zeros(3), torch.tensor([10.0, 50.0, 10.0]), ["en", "de", "fr"])
    assert got.fallback.tolist() == [False, True, True]
    assert got.n.tolist() == [300, 600, 600]
    assert got.group == ("en, tokens 1-49", "de, tokens 50+", "fr, tokens 1-49")
    groups = [t.group for t in fitted.thresholds("s", 0.05)]
    assert groups == ["en, tokens 1-49", "en, tokens 50+", "pooled"]


def test_thresholds_agree_with_the_p_values() -> None:
    draw = torch.Generator().manual_seed(3)
    lengths = torch.randint(5, 100, (500,), generator=draw).float()
    fitted = Calibration.fit({"s": torch.randn(500, generator=draw)}, lengths)
    fresh = torch.randn(500, generator=draw) + 1
    got = fitted.p_values("s", fresh, lengths)
    limits = {t.group: t.value for t in fitted.thresholds("s", 0.1)}
    wanted = [bool(score > limits[group]) for score, group in zip(fresh, got.group, strict=True)]
    assert (got.p <= 0.1).tolist() == wanted
    assert any(wanted)


@settings(deadline=None, max_examples=40)
@given(st.permutations(list(range(30))))
def test_the_order_of_calibration_does_not_matter(order: list[int]) -> None:
    scores, lengths = torch.arange(30.0) % 7, torch.arange(30.0) + 1
    plain = Calibration.fit({"s": scores}, lengths, minimum=5)
    other = Calibration.fit({"s": scores[order]}, lengths[order], minimum=5)
    fresh = torch.linspace(-1, 8, 30)
    assert torch.equal(plain.p_values("s", fresh, lengths).p, other.p_values("s", fresh, lengths).p)


def test_length_groups_cut_at_quantiles() -> None:
    groups = LengthGroups.fit(torch.arange(1.0, 101.0))
    assert len(groups.labels) == 4
    assert torch.bincount(groups.index(torch.arange(1.0, 101.0))).tolist() == pytest.approx([25] * 4, abs=1)
    assert LengthGroups.fit(torch.full((50,), 30.0)).labels == ("tokens 1+",)
    assert LengthGroups(torch.tensor([40, 80])).names(torch.tensor([1.0, 39.0, 40.0, 79.0, 80.0, 5000.0])) == (
        *["tokens 1-39"] * 2,
        *["tokens 40-79"] * 2,
        *["tokens 80+"] * 2,
    )


def test_state_survives_a_file() -> None:
    draw = torch.Generator().manual_seed(4)
    lengths = torch.randint(5, 100, (400,), generator=draw).float()
    scores = {"l0": torch.randn(400, generator=draw), "surprise.top10": torch.randn(400, generator=draw)}
    fitted = Calibration.fit(scores, lengths, two_sided={"l0"}, minimum=20)
    again = Calibration.from_state(load(save(fitted.state())))
    assert (again.two_sided, again.minimum) == (frozenset({"l0"}), 20)
    for name in scores:
        one, other = fitted.p_values(name, scores[name], lengths), again.p_values(name, scores[name], lengths)
        assert torch.equal(one.p, other.p)
        assert one.group == other.group


def test_wrong_use_is_refused() -> None:
    scores, lengths = {"surprise": torch.randn(40)}, torch.arange(40.0) + 1
    fitted = Calibration.fit(scores, lengths)
    with pytest.raises(UnknownName, match="unknown calibrated score 'surprize'; the nearest name is 'surprise'"):
        fitted.p_values("surprize", torch.zeros(1), torch.ones(1))
    with pytest.raises(NonFinite, match="'surprise' holds NaN"):
        fitted.p_values("surprise", torch.tensor([math.nan]), torch.ones(1))
    with pytest.raises(NonFinite, match="'surprise' holds NaN"):
        Calibration.fit({"surprise": torch.full((3,), math.inf)}, torch.ones(3))
    with pytest.raises(TooFewSamples, match="at least 2, got 0"):
        Calibration.fit({"surprise": torch.zeros(0)}, torch.zeros(0))
    state = fitted.state()
    del state["edges"]
    with pytest.raises(CorruptArtifact, match="no state of a calibration"):
        Calibration.from_state(state)
    state = fitted.state()
    state["scores|surprise|pooled"] = state["scores|surprise|pooled"].flip(0)
    with pytest.raises(CorruptArtifact, match="not sorted"):
        Calibration.from_state(state)


def test_keeps_which_scores_go_together() -> None:
    draw = torch.Generator().manual_seed(3)
    scores = {"nll": torch.randn(80, generator=draw), "l0": torch.randint(0, 5, (80,), generator=draw).float()}
    fitted = Calibration.fit(scores, torch.randint(1, 90, (80,), generator=draw).float())
    again = Calibration.from_state(load(save(fitted.state())))
    assert torch.equal(again.joint(["l0", "nll"]), torch.stack([scores["l0"], scores["nll"]], 1))
    old = {k: v for k, v in fitted.state().items() if not k.startswith("order|")}
    assert Calibration.from_state(old).joint(["l0"]) is None
