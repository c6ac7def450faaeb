import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import TooFewSamples
from perimetry.measures.reconstruction import (
    ReconstructionSums,
    explained_variance,
    explained_variance_token_mean,
    fvu,
    shrinkage,
)
from perimetry.runtime import generator

SHAPES = {"tokens": st.integers(3, 40), "width": st.integers(1, 8), "seed": st.integers(0, 999)}


def pair(tokens: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = generator(seed)
    x = torch.randn(tokens, width, generator=source, dtype=torch.float64)
    return x, x + 0.3 * torch.randn(tokens, width, generator=source, dtype=torch.float64)


@settings(max_examples=50, deadline=None)
@given(**SHAPES)
def test_the_mean_explains_nothing_and_the_input_everything(tokens: int, width: int, seed: int) -> None:
    x, _ = pair(tokens, width, seed)
    assert explained_variance(x, x) == pytest.approx(1.0)
    assert explained_variance(x, x.mean(0).expand_as(x)) == pytest.approx(0.0, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(**SHAPES, scale=st.floats(0.01, 100), shift=st.floats(-1000, 1000))
def test_shift_and_scale_together_change_nothing(
    tokens: int, width: int, seed: int, scale: float, shift: float
) -> None:
    x, y = pair(tokens, width, seed)
    assert fvu(x * scale + shift, y * scale + shift) == pytest.approx(fvu(x, y), rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(**SHAPES, size=st.integers(1, 20), cut=st.integers(1, 39))
def test_batches_and_merging_change_nothing(tokens: int, width: int, seed: int, size: int, cut: int) -> None:
    x, y = pair(tokens, width, seed)
    sums = ReconstructionSums.start(x[:size])
    for a, b in zip(x.split(size), y.split(size), strict=True):
        sums = sums.add(a, b)
    cut = min(cut, tokens - 1)
    halves = [ReconstructionSums.start(a).add(a, b) for a, b in ((x[:cut], y[:cut]), (x[cut:], y[cut:]))]
    merged = halves[0].merge(halves[1])
    for found in (sums, merged):
        assert found.fvu() == pytest.approx(fvu(x, y), rel=1e-9)
        assert found.mse() == pytest.approx(float((x - y).square().sum(1).mean()))
        assert found.shrinkage().norm_ratio == pytest.approx(shrinkage(x, y).norm_ratio)


@settings(max_examples=50, deadline=None)
@given(**SHAPES, factor=st.floats(0.05, 3))
def test_shrinkage_of_a_scaled_copy_is_the_factor(tokens: int, width: int, seed: int, factor: float) -> None:
    x, _ = pair(tokens, width, seed)
    found = shrinkage(x, factor * x)
    assert found.norm_ratio == pytest.approx(factor)
    assert found.gamma == pytest.approx(factor)


def test_a_large_mean_loses_no_digits() -> None:
    x = (torch.randn(500, 16, generator=generator(0)) + 3000.0).bfloat16().float()
    y = (x.double() + 0.5).float()
    wanted = 500 * 16 * 0.25 / float((x.double() - x.double().mean(0)).square().sum())
    sums = ReconstructionSums.start(x[:3])
    for a, b in zip(x.split(7), y.split(7), strict=True):
        sums = sums.add(a, b)
    assert sums.fvu() == pytest.approx(wanted, rel=1e-9)


def test_explained_variance_is_about_the_mean_not_about_zero() -> None:
    x = torch.tensor([[100.0], [102.0]])
    assert explained_variance(x, torch.tensor([[101.0], [101.0]])) == pytest.approx(0.0)


def test_the_older_definition_by_hand() -> None:
    x = torch.tensor([[0.0], [4.0]])
    y = torch.tensor([[1.0], [4.0]])
    assert explained_variance_token_mean(x, y) == pytest.approx((0.75 + 1) / 2)
    assert explained_variance(x, y) == pytest.approx(1 - 1 / 8)


def test_without_variance_nothing_can_be_said() -> None:
    same = torch.ones(3, 2)
    with pytest.raises(TooFewSamples, match="3 tokens without variance"):
        fvu(same, same)
    with pytest.raises(TooFewSamples, match="without variance"):
        explained_variance_token_mean(same, same)
    with pytest.raises(TooFewSamples, match="every activation is zero"):
        shrinkage(torch.zeros(2, 2), torch.ones(2, 2))
