"""The int8 product against the same rounding written out in NumPy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import ConfigError
from perimetry.runtime import generator
from perimetry.sae.steps import costs
from perimetry.sae.steps.costs import Costs, selection
from perimetry.sae.steps.native.int8 import Int8Product, int8_usable

needs_int8 = pytest.mark.skipif(not int8_usable(), reason="this processor has no int8 product")
SIGMAS = 6.0


def data(rows: int, width: int, d: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = generator(seed)
    scale = torch.randn(d, generator=draw).exp()
    acts = torch.randn(rows, d, generator=draw) * scale
    return acts, torch.randn(width, d, generator=draw), torch.randn(width, generator=draw)


def rounded(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers of at most 127 and the step of each row."""
    step = np.abs(matrix).max(1, keepdims=True) / np.float32(127)
    return np.rint(matrix / np.where(step > 0, step, 1)), step


def by_hand(acts: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and their expected error: that of a uniform draw within each step."""
    x, W = acts.numpy().astype(np.float64), weights.numpy().astype(np.float64)
    strides = [max(1, m.shape[0] // 512) for m in (x, W)]
    factors = np.sqrt(np.sqrt((W[:: strides[1]] ** 2).mean(0)) / np.sqrt((x[:: strides[0]] ** 2).mean(0)))
    x, W = x * factors, W / factors
    (a, s), (b, t) = rounded(x), rounded(W)
    sizes, norms = np.linalg.norm(W, axis=1), np.linalg.norm(x, axis=1)
    error = s * sizes + norms[:, None] * t[:, 0]
    return (a @ b.T) * s * t[:, 0] + bias.numpy(), error / math.sqrt(12)


@needs_int8
@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 130), width=st.integers(1, 200), d=st.integers(1, 70), seed=st.integers(0, 10_000))
def test_the_scores_are_those_of_the_rounded_product(rows: int, width: int, d: int, seed: int) -> None:
    acts, weights, bias = data(rows, width, d, seed)
    found = Int8Product(acts, weights, bias).above(torch.full((width,), -1e30), SIGMAS, rows * width)
    assert found is not None
    wanted, error = by_hand(acts, weights, bias)
    assert torch.equal(found.offsets, torch.arange(rows + 1) * width)
    assert torch.equal(found.columns.view(rows, width), torch.arange(width).expand(rows, width))
    # Where a value lies half-way between two integers, float32 and float64 may round apart: one step of one coordinate.
    loose = 0.02 * np.abs(wanted).max() + 1e-4
    gap = np.abs(found.scores.view(rows, width).numpy() - wanted)
    assert np.median(gap) <= 1e-4 * np.abs(wanted).max() + 1e-5
    assert gap.max() <= loose
    np.testing.assert_allclose(found.slack.view(rows, width).numpy(), SIGMAS * error, rtol=1e-3, atol=1e-6)


@needs_int8
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_expected_error_is_the_real_one(seed: int) -> None:
    acts, weights, bias = data(300, 400, 64, seed)
    wanted, error = by_hand(acts, weights, bias)
    real = wanted - (acts.double().numpy() @ weights.double().numpy().T + bias.numpy())
    assert 0.5 < math.sqrt((real**2).mean() / (error**2).mean()) < 1.05
    assert (np.abs(real) < SIGMAS * error).all()


@needs_int8
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 130),
    width=st.integers(40, 700),
    d=st.integers(1, 70),
    k=st.integers(1, 9),
    seed=st.integers(0, 10_000),
)
def test_rows_without_doubt_have_the_exact_top_k(rows: int, width: int, d: int, k: int, seed: int) -> None:
    acts, weights, bias = data(rows, width, d, seed)
    columns, values, doubt = Int8Product(acts, weights, bias).top(k, k + 16, SIGMAS)
    best = (acts @ weights.T + bias).topk(k, dim=1)
    sure = ~doubt
    torch.testing.assert_close(values[sure], best.values[sure], rtol=1e-5, atol=1e-5)
    apart = (best.values[:, :-1] - best.values[:, 1:] > 1e-4).all(1) & sure
    assert torch.equal(columns[apart], best.indices[apart])


@needs_int8
def test_equal_scores_in_plenty_are_a_doubt_and_no_score_is_none() -> None:
    same = torch.ones(1, 8).expand(900, 8).contiguous()
    acts = torch.ones(30, 8)
    assert bool(Int8Product(acts, same, torch.zeros(900)).top(5, 20, SIGMAS)[2].all())
    columns, values, doubt = Int8Product(acts, -same, torch.zeros(900)).top(5, 20, SIGMAS)
    assert bool(doubt.all())
    assert not values.any()
    assert not columns.any()
    nothing = Int8Product(torch.zeros(3, 8), torch.zeros(40, 8), torch.arange(40.0)).top(5, 20, SIGMAS)
    assert torch.equal(nothing[0], torch.arange(39, 34, -1).expand(3, 5))


@needs_int8
def test_more_than_the_limit_is_refused() -> None:
    acts, weights, bias = data(100, 100, 10, 0)
    product = Int8Product(acts, weights, bias)
    assert product.above(torch.full((100,), -1e30), SIGMAS, 9_999) is None
    assert product.above(torch.full((100,), 1e30), SIGMAS, 0) is not None


@needs_int8
def test_threads_and_company_change_nothing() -> None:
    acts, weights, bias = data(200, 640, 48, 3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = Int8Product(acts, weights, bias).top(6, 22, SIGMAS)
        torch.set_num_threads(2)
        two = Int8Product(acts, weights, bias).top(6, 22, SIGMAS)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_the_fastest_product_selects_and_can_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERIMETRY_SELECTION", raising=False)
    for rates, wanted in (((1.0, 3.0, 4.0), "int8"), ((1.0, 3.0, 2.0), "bf16"), ((1.0, 0.0, 0.0), "float32")):
        monkeypatch.setattr(costs, "host_costs", lambda r=rates: Costs(r[0], r[1], r[2], 1.0, True))
        assert selection() == wanted
    monkeypatch.setattr(costs, "host_costs", lambda: Costs(1.0, 3.0, 0.0, 1.0, True))
    monkeypatch.setenv("PERIMETRY_SELECTION", "float32")
    assert selection() == "float32"
    monkeypatch.setenv("PERIMETRY_SELECTION", "int8")
    with pytest.raises(
        ConfigError, match="PERIMETRY_SELECTION is 'int8'; one that this host has is wanted: bf16, float32"
    ):
        selection()
