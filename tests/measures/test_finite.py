import pytest
import torch

from perimetry.measures.finite import all_finite


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), -float("inf")])
def test_one_bad_number_is_seen_wherever_it_stands(dtype: torch.dtype, bad: float | None) -> None:
    for place in ((0, 0), (3, 4)):
        x = torch.ones(4, 5, dtype=dtype)
        if bad is not None:
            x[place] = bad
        assert all_finite(x) is (bad is None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_large_numbers_that_overflow_their_sum_are_finite(dtype: torch.dtype) -> None:
    assert all_finite(torch.full((100,), torch.finfo(dtype).max, dtype=dtype))


def test_infinities_of_both_signs_do_not_cancel() -> None:
    assert not all_finite(torch.tensor([float("inf"), -float("inf")]))


def test_nothing_is_finite() -> None:
    assert all_finite(torch.zeros(0, 3))
