"""The tests of drift against second computations."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from perimetry.measures.relabelling import monte_carlo_p
from perimetry.runtime import generator
from perimetry.shift.drift_alarms import Stratum, alarm_budget, clopper_pearson
from perimetry.shift.drift_effects import cliff_delta, effects, hedges_g
from perimetry.shift.drift_tests import ks_score, ks_within_groups, mmd

samples = st.lists(st.integers(-5, 5), min_size=2, max_size=30).map(lambda x: torch.tensor(x).float())


def gaussian_mmd(clean: np.ndarray, seen: np.ndarray) -> float:
    """The unbiased statistic with the kernel itself, on ranks as normal quantiles."""
    both = np.concatenate([clean, seen])
    rows = np.stack([stats.norm.ppf((stats.rankdata(c) - 0.5) / len(both)) for c in both.T], 1)
    apart = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(-1))
    width = np.median(apart[np.triu_indices(len(rows), 1)])
    kernel, n = np.exp(-(apart**2) / (2 * width**2)), len(clean)
    x, y, xy = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:]
    m = len(seen)
    return (x.sum() - n) / (n * (n - 1)) + (y.sum() - m) / (m * (m - 1)) - 2 * xy.mean()


def test_mmd_approaches_the_kernel() -> None:
    draw = torch.Generator().manual_seed(0)
    clean, seen = torch.randn(120, 4, generator=draw), torch.randn(90, 4, generator=draw) + 0.7
    seen[:, 1].exp_()
    found = [mmd(clean, seen, generator(s), permutations=99).statistic for s in range(8)]
    assert np.mean(found) == pytest.approx(gaussian_mmd(clean.numpy(), seen.numpy()), rel=0.05)


def test_mmd_does_not_see_units() -> None:
    draw = torch.Generator().manual_seed(1)
    clean, seen = torch.randn(60, 2, generator=draw), torch.randn(50, 2, generator=draw)
    scaled = [x * torch.tensor([1000.0, 0.01]) + 5 for x in (clean, seen)]
    assert mmd(clean, seen, generator(0)) == mmd(scaled[0], scaled[1], generator(0))


def test_mmd_moves_the_rows_of_a_prompt_together() -> None:
    """Ten prompts read ten times each: rows are no evidence of their own."""
    false = alone = 0
    for seed in range(60):
        draw = torch.Generator().manual_seed(seed)
        clean, prompts = torch.randn(60, 2, generator=draw), torch.randn(10, 2, generator=draw)
        blocks = torch.arange(10).repeat_interleave(10)
        seen = prompts[blocks] + 1e-3 * torch.randn(100, 2, generator=draw)
        false += mmd(clean, seen, generator(seed), blocks=blocks, permutations=99).p_value <= 0.05
        alone += mmd(clean, seen, generator(seed), permutations=99).p_value <= 0.05
    assert alone >= 50
    assert false < alone / 2


def test_ks_of_the_score_is_scipys() -> None:
    draw = torch.Generator().manual_seed(2)
    for n, m in ((30, 40), (2000, 500)):
        clean, seen = torch.randn(n, generator=draw), torch.randn(m, generator=draw) + 0.1
        wanted: Any = stats.ks_2samp(clean.numpy(), seen.numpy())
        mine = ks_score(clean, seen)
        assert mine.statistic == pytest.approx(wanted.statistic)
        assert mine.p_value == pytest.approx(wanted.pvalue, rel=0.1)


@settings(deadline=None, max_examples=50)
@given(samples, samples)
def test_ks_within_one_group_is_the_plain_distance(clean: torch.Tensor, seen: torch.Tensor) -> None:
    found = ks_within_groups([(clean, seen)], generator(0), 99)
    wanted: Any = stats.ks_2samp(clean.numpy(), seen.numpy())
    assert found.statistic == pytest.approx(wanted.statistic, abs=1e-9)


def test_ks_within_groups_counts_all_relabellings() -> None:
    groups = [
        (torch.tensor([1.0, 2.0, 5.0]), torch.tensor([3.0, 4.0])),
        (torch.tensor([1.0, 7.0]), torch.tensor([9.0])),
    ]

    def distance(parts: list[tuple[list[float], list[float]]]) -> float:
        window = sum(len(seen) for _, seen in parts)
        jumps: dict[float, float] = {}
        for clean, seen in parts:
            both = clean + seen
            for side, weight in ((seen, 1 / window), (clean, -len(seen) / window / len(clean))):
                for value in side:
                    p = sum(other >= value for other in both) / len(both)
                    jumps[p] = jumps.get(p, 0) + weight
        return max(abs(sum(w for q, w in jumps.items() if q <= p)) for p in jumps)

    def relabellings(group: tuple[torch.Tensor, torch.Tensor]) -> list[tuple[list[float], list[float]]]:
        both = torch.cat(group).tolist()
        picks = itertools.combinations(range(len(both)), group[1].numel())
        return [([x for i, x in enumerate(both) if i not in p], [both[i] for i in p]) for p in picks]

    observed = distance([(c.tolist(), s.tolist()) for c, s in groups])
    everything = [distance(list(choice)) for choice in itertools.product(*map(relabellings, groups))]
    exact = sum(d >= observed - 1e-12 for d in everything) / len(everything)
    found = ks_within_groups(groups, generator(0), 20_000)
    assert found.statistic == pytest.approx(observed)
    assert found.p_value == pytest.approx(exact, rel=0.4)
    many = [ks_within_groups(groups, generator(s), 20_000).p_value for s in range(30)]
    assert np.mean(many) == pytest.approx(exact, rel=0.1)


def test_no_group_says_nothing() -> None:
    assert ks_within_groups([], generator(0), 99).p_value == 1.0


def test_monte_carlo_p_values_are_uniform_with_and_without_stopping() -> None:
    draw, values = torch.Generator().manual_seed(3), []
    for _ in range(800):
        observed = float(torch.rand(1, generator=draw))
        values.append(monte_carlo_p(observed, lambda k: torch.rand(k, generator=draw).double().numpy(), 999, enough=20))
    for level in (0.01, 0.05, 0.2, 0.5):
        assert sum(p <= level for p in values) <= stats.binom.ppf(0.999, len(values), level)
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert monte_carlo_p(2.0, lambda k: torch.rand(k, generator=draw).double().numpy(), 999) == 1 / 1000


@settings(deadline=None, max_examples=60)
@given(samples, samples)
def test_effect_sizes_equal_their_definitions(clean: torch.Tensor, seen: torch.Tensor) -> None:
    pairs = [np.sign(y - x) for x in clean.tolist() for y in seen.tolist()]
    assert cliff_delta(clean, seen) == pytest.approx(np.mean(pairs))
    x, y = clean.double().numpy(), seen.double().numpy()
    n, m = len(x), len(y)
    spread = np.sqrt(((n - 1) * x.var(ddof=1) + (m - 1) * y.var(ddof=1)) / (n + m - 2))
    wanted = (y.mean() - x.mean()) / spread * (1 - 3 / (4 * (n + m) - 9)) if spread > 0 else 0.0
    assert hedges_g(clean, seen) == pytest.approx(wanted, abs=1e-9)


def test_intervals_of_effects_cover_and_hold_the_estimate() -> None:
    covered = {"cliff": 0, "hedges": 0}
    truth = {"cliff": 2 * stats.norm.cdf(0.5 / 2**0.5) - 1, "hedges": 0.5}
    for seed in range(120):
        draw = torch.Generator().manual_seed(seed)
        clean, seen = torch.randn(80, 1, generator=draw), torch.randn(60, 1, generator=draw) + 0.5
        (found,) = effects(["nll"], clean, seen, generator(seed), 300)
        assert found.cliff.low <= found.cliff.estimate <= found.cliff.high
        for kind in covered:
            box = getattr(found, kind)
            covered[kind] += box.low <= truth[kind] <= box.high
    assert min(covered.values()) >= stats.binom.ppf(0.001, 120, 0.93), covered


def test_clopper_pearson_is_scipys() -> None:
    for k, n in ((0, 9), (3, 20), (9, 9)):
        wanted = stats.binomtest(k, n).proportion_ci(method="exact")
        assert clopper_pearson(k, n)[1:3] == pytest.approx((wanted.low, wanted.high))


def test_alarms_against_simulation() -> None:
    """Calibration and window drawn anew each time: the printed chance is the frequency."""
    draw, alpha = torch.Generator().manual_seed(4), 0.1
    sizes, totals = ((29, 40), (49, 30)), []
    for _ in range(4000):
        total = 0
        for n, m in sizes:
            clean, seen = torch.rand(n, generator=draw), torch.rand(m, generator=draw)
            p = (1 + (clean[None] >= seen[:, None]).sum(1)) / (n + 1)
            total += int((p <= alpha + 1e-6).sum())
        totals.append(total)
    for realised in (5, 9, 14):
        strata = [
            Stratum(torch.zeros(n), torch.zeros(m), realised if i == 0 else 0, fallback=False)
            for i, (n, m) in enumerate(sizes)
        ]
        found = alarm_budget(strata, alpha)
        assert found.expected == pytest.approx(7.0)
        share = float(np.mean([t >= realised for t in totals]))
        assert found.p_value == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5 + 1e-3)


def test_two_sided_alarms_take_both_tails() -> None:
    stratum = Stratum(torch.zeros(59), torch.zeros(100), 5, fallback=False)
    assert alarm_budget([stratum], 0.05).expected == pytest.approx(5.0)
    assert alarm_budget([stratum], 0.05, two_sided=True).expected == pytest.approx(100 * 2 / 60)
