"""The cumulative sum against its definition; how often it alarms where nothing drifts, and how soon where something does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float

from perimetry.monitor.drift.cusum import cusum_path, cusum_step
from perimetry.monitor.drift.drift_config import DriftConfig

THRESHOLD = DriftConfig().cusum


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=60))
def test_a_path_is_its_steps(values: list[float]) -> None:
    value, wanted = 0.0, []
    for p in values:
        value = cusum_step(value, p)
        wanted.append(value)
    assert cusum_path(np.array([values]))[0] == pytest.approx(wanted, abs=1e-9)


def conformal(
    draw: np.random.Generator, runs: int, n: int, scores: Float[np.ndarray, "run step"]
) -> Float[np.ndarray, "run step"]:
    """P-values of each run against a calibration set of its own, uniform scores. All its prompts share that set."""
    found = np.empty_like(scores)
    for run in range(runs):
        clean = np.sort(draw.random(n, dtype=np.float32))
        found[run] = (1 + n - np.searchsorted(clean, scores[run], "left")) / (n + 1)
    return found


def beta_p(
    draw: np.random.Generator, runs: int, n: int, steps: int, found: Float[np.ndarray, "run step"]
) -> Float[np.ndarray, "run step"]:
    """The same law without sorting the prompts: each falls between two calibration scores with the chance that the gap between them has."""
    gaps = draw.standard_exponential((runs, n + 1), dtype=np.float32).cumsum(1)
    for run in range(runs):
        places = np.searchsorted(gaps[run], draw.random(steps, dtype=np.float32) * gaps[run, -1])
        found[run] = (1 + np.minimum(places, n)) / (n + 1)
    return found


@pytest.mark.parametrize("n", [200, 1000, 20_000])
def test_false_alarms_within_ten_thousand_prompts_are_rare(n: int) -> None:
    """Designed for 5 %. 2,400 runs: 7 % is 4.5 standard errors above."""
    draw, runs, steps, alarms = np.random.default_rng(n), 2_400, 10_000, 0
    for _ in range(runs // 60):
        p = beta_p(draw, 60, n, steps, np.empty((60, steps), np.float32))
        alarms += int((cusum_path(p).max(1) >= THRESHOLD).sum())
    assert 0.02 < alarms / runs <= 0.07


def test_the_quick_law_is_that_of_conformal_p_values() -> None:
    draw, n, steps = np.random.default_rng(5), 19, 4_000
    slow = conformal(draw, 50, n, draw.random((50, steps)))
    quick = beta_p(draw, 50, n, steps, np.empty((50, steps)))
    for p in (slow, quick):
        # The mean is 1/2 + 1/(2 (n + 1)); a run shares a calibration set, hence the wide bound over 50 sets.
        assert float(p.mean()) == pytest.approx(0.525, abs=4.5 * (1 / (12 * (n + 2) * 50)) ** 0.5)
        assert set(np.round(p.ravel() * (n + 1)).astype(int)) == set(range(1, n + 2))


@pytest.mark.parametrize(("auroc", "most", "least"), [(0.7, 60, 20), (0.6, 350, 150)])
def test_what_drifts_is_found_soon(auroc: float, most: int, least: int) -> None:
    """Scores of the traffic are normal, moved so far that the AUROC is that; simulated medians are 40 and 274 prompts."""
    from scipy import stats

    draw, runs, n, steps = np.random.default_rng(int(100 * auroc)), 400, 1_000, 2_500
    moved = draw.normal(2**0.5 * stats.norm.ppf(auroc), size=(runs, steps))
    path = cusum_path(conformal(draw, runs, n, stats.norm.cdf(moved).astype(np.float32)))
    first = np.where((path >= THRESHOLD).any(1), (path >= THRESHOLD).argmax(1) + 1, steps)
    assert least <= float(np.median(first)) <= most


def test_a_few_outsiders_are_found_too() -> None:
    """Five in a hundred prompts far outside: the median of the delay was simulated at 193 prompts."""
    draw, runs, n, steps = np.random.default_rng(8), 400, 1_000, 1_500
    scores = np.where(draw.random((runs, steps)) < 0.05, 1.0, draw.random((runs, steps))).astype(np.float32)
    path = cusum_path(conformal(draw, runs, n, scores))
    first = np.where((path >= THRESHOLD).any(1), (path >= THRESHOLD).argmax(1) + 1, steps)
    assert 100 <= float(np.median(first)) <= 300
