"""The bootstrap by pair against the measures of the house, and against counting by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.evals.resampling import METRICS, pair_weights
from perimetry.measures.ranking import bootstrap_ranking

PEERS = {"auroc": "auroc", "fpr_at_95_tpr": "fpr95", "tpr_at_1_fpr": "tpr01"}
SCORES = st.lists(st.integers(0, 6), min_size=3, max_size=20)


@pytest.mark.parametrize("metric", sorted(METRICS))
@settings(max_examples=60, deadline=None)
@given(clean=SCORES, shifted=SCORES, seed=st.integers(0, 1000))
def test_draws_are_the_metric_of_the_resampled_cases(
    metric: str, clean: list[int], shifted: list[int], seed: int
) -> None:
    c, s = torch.tensor(clean, dtype=torch.float64), torch.tensor(shifted, dtype=torch.float64)
    clean_pairs = [str(i % 3) for i in range(len(clean))]
    shifted_pairs = [str(i % 3) for i in range(len(shifted))]
    weights = pair_weights(clean_pairs, shifted_pairs, torch.Generator().manual_seed(seed), 12)
    assert weights.pairs == 3
    found = METRICS[metric].draws(c, s, weights)
    for row, draw in enumerate(found.tolist()):
        own = c.repeat_interleave(weights.clean[row].long()), s.repeat_interleave(weights.shifted[row].long())
        assert draw == pytest.approx(METRICS[metric].value(*own), abs=1e-9)


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_twins_give_the_interval_of_the_paired_bootstrap(metric: str) -> None:
    draw = torch.Generator().manual_seed(5)
    clean = torch.randn(80, generator=draw, dtype=torch.float64)
    shifted = clean * 0.5 + torch.randn(80, generator=draw, dtype=torch.float64) + 1
    names = [str(i) for i in range(80)]
    mine = (
        METRICS[metric]
        .draws(clean, shifted, pair_weights(names, names, torch.Generator().manual_seed(9), 400))
        .sort()
        .values
    )
    peer = bootstrap_ranking(
        clean, shifted, torch.Generator().manual_seed(9), metric=PEERS[metric], resamples=400, confidence=0.9
    )
    assert torch.quantile(mine, 0.05).item() == pytest.approx(peer.low, abs=1e-6)
    assert torch.quantile(mine, 0.95).item() == pytest.approx(peer.high, abs=1e-6)


def test_cases_of_a_pair_are_drawn_together() -> None:
    weights = pair_weights(["a", "a", "b"], ["b", "a"], torch.Generator().manual_seed(0), 50)
    assert torch.equal(weights.clean[:, 0], weights.clean[:, 1])
    assert torch.equal(weights.clean[:, 0], weights.shifted[:, 1])
    assert torch.equal(weights.clean[:, 2], weights.shifted[:, 0])
    assert bool((weights.clean[:, 0] + weights.clean[:, 2] == 2).all())
