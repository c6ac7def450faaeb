import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import TooFewSamples
from perimetry.measures.sparsity import dead_share, density, fires, l0, log_density, summarise_l0
from perimetry.runtime import generator


def codes(tokens: int, width: int, k: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = generator(seed)
    indices = torch.rand(tokens, width, generator=source).argsort(dim=1)[:, :k]
    values = torch.randn(tokens, indices.shape[1], generator=source)
    return indices, values * (torch.rand(values.shape, generator=source) < 0.7)


@settings(max_examples=50, deadline=None)
@given(
    tokens=st.integers(1, 30),
    width=st.integers(1, 20),
    k=st.integers(1, 20),
    seed=st.integers(0, 999),
    pad=st.integers(0, 5),
)
def test_counts_agree_with_the_dense_matrix_and_with_each_other(
    tokens: int, width: int, k: int, seed: int, pad: int
) -> None:
    indices, values = codes(tokens, width, k, seed)
    dense = torch.zeros(tokens, width).scatter_add_(1, indices, values)
    padded = torch.nn.functional.pad(indices, (0, pad)), torch.nn.functional.pad(values, (0, pad))
    counts = l0(padded[1])
    assert torch.equal(counts, (dense != 0).sum(1).float())
    fired = fires(*padded, width)
    assert torch.equal(fired, (dense != 0).sum(0))
    assert float(density(fired, tokens).sum()) == pytest.approx(float(counts.double().mean()))
    assert dead_share(fired) == pytest.approx(float((dense == 0).all(0).double().mean()))
    assert int(counts.max()) <= k


def test_signed_values_count() -> None:
    assert l0(torch.tensor([[-1.0, 2.0, 0.0]])).tolist() == [2.0]


def test_a_planted_dead_concept_is_found() -> None:
    fired = fires(torch.tensor([[0, 2], [2, 0]]), torch.ones(2, 2), 4)
    assert (fired == 0).nonzero()[:, 0].tolist() == [1, 3]
    assert dead_share(fired) == 0.5
    assert dead_share(fired, at_most=2) == 1.0


def test_summary_by_hand() -> None:
    found = summarise_l0(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert found.mean == 3.0
    assert found.median == 2.5
    assert found.deviation == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 4))
    assert found.low < found.median < found.high


def test_logarithm_of_a_concept_that_never_fires() -> None:
    assert log_density(torch.tensor([0, 10]), 100).tolist() == pytest.approx([-10.0, -1.0], abs=1e-6)


def test_no_token_is_refused() -> None:
    with pytest.raises(TooFewSamples, match="no token to count"):
        summarise_l0(torch.zeros(0))
    with pytest.raises(TooFewSamples, match="firing rates of no token"):
        density(torch.zeros(3, dtype=torch.int64), 0)
