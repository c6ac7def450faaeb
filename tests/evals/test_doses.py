"""Score against dose: scipy as the oracle."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from perimetry.evals.doses import dose_fit


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=4, max_size=4), min_size=2, max_size=8))
def test_spearman_within_pairs_is_that_of_scipy(rows: list[list[int]]) -> None:
    fit = dose_fit(torch.tensor(rows, dtype=torch.float64), torch.Generator().manual_seed(0), resamples=20)
    peer: Any = stats.spearmanr
    oracle = [peer(row, range(4)).statistic if len(set(row)) > 1 else 0.0 for row in rows]
    assert fit.spearman.estimate == pytest.approx(sum(oracle) / len(oracle))
    assert fit.spearman.n == len(rows)


def test_a_rising_score_is_monotone_with_certainty_and_noise_is_not() -> None:
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(100, 5, generator=draw, dtype=torch.float64)
    rising = dose_fit(noise + 4 * torch.arange(5), draw, resamples=200)
    assert (rising.rising.estimate, rising.rising.low) == (1.0, 1.0)
    assert rising.spearman.low > 0.9
    flat = dose_fit(noise, draw, resamples=200)
    assert flat.spearman.low < 0 < flat.spearman.high
    assert flat.rising.low < 1
