import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import TooFewSamples
from perimetry.measures import dictionary
from perimetry.measures.dictionary import alignment, redundancy
from perimetry.runtime import generator


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 30), d=st.integers(1, 8), seed=st.integers(0, 999), block=st.integers(1, 40))
def test_redundancy_is_the_largest_other_cosine(n: int, d: int, seed: int, block: int) -> None:
    rows = torch.randn(n, d, generator=generator(seed), dtype=torch.float64)
    before, dictionary.BLOCK = dictionary.BLOCK, block
    try:
        found = redundancy(rows)
    finally:
        dictionary.BLOCK = before
    for i in range(n):
        others = [float(torch.cosine_similarity(rows[i], rows[j], dim=0)) for j in range(n) if j != i]
        assert float(found[i]) == pytest.approx(max(others), abs=1e-9)


def test_orthonormal_rows_give_zero_and_copies_one() -> None:
    assert redundancy(torch.linalg.qr(torch.randn(6, 6, generator=generator(1)))[0]).abs().max() < 1e-6
    assert redundancy(torch.tensor([[1.0, 2.0], [2.0, 4.0], [2.0, -1.0]])).tolist() == pytest.approx(
        [1, 1, 0], abs=1e-6
    )


def test_rows_of_length_zero_are_like_nothing() -> None:
    assert redundancy(torch.tensor([[0.0, 0.0], [1.0, 0.0]])).tolist() == [0.0, 0.0]


def test_alignment_of_tied_opposed_and_crossed_rows() -> None:
    encoder = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    decoder = torch.tensor([[5.0, 0.0], [-1.0, 0.0], [0.0, 2.0]])
    assert alignment(encoder, decoder).tolist() == [1.0, -1.0, 0.0]


def test_one_row_is_refused() -> None:
    with pytest.raises(TooFewSamples, match="1 row has no other"):
        redundancy(torch.ones(1, 3))
