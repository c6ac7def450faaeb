"""Distances on rings: what is known of circles, of matrices that only grow, and of labels that are permuted."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from perimetry.editing.rings import (
    LEAST_ORDER,
    Shattering,
    cyclic_distances,
    index_beside,
    ring_distances,
    ring_order,
    shattering,
)
from perimetry.errors import ConfigError, TooFewSamples, WidthMismatch
from perimetry.runtime import generator


def circle(n: int) -> Tensor:
    angle = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    return torch.stack([angle.cos(), angle.sin()], 1)


def test_a_circle_is_a_perfect_ring_and_a_shuffled_one_is_none() -> None:
    places = torch.arange(12)
    near = ring_distances(circle(12))
    assert ring_order(near, cyclic_distances(places)) == pytest.approx(1.0, abs=0.05)
    mixed = torch.randperm(12, generator=generator(0))
    assert ring_order(near, cyclic_distances(mixed)) < LEAST_ORDER
    assert ring_order(near[mixed][:, mixed], cyclic_distances(mixed)) == pytest.approx(1.0, abs=0.05)


def test_nothing_moved_is_zero_exactly() -> None:
    near = ring_distances(torch.randn(50, 7, generator=generator(1)))
    assert shattering(near, near.clone()) == Shattering(0.0, 0.0, 1.0)
    assert shattering(near, near).by_size == 0


def test_permuted_labels_are_a_loss_of_structure() -> None:
    near = ring_distances(circle(12))
    mixed = torch.randperm(12, generator=generator(2))
    found = shattering(near, near[mixed][:, mixed])
    assert found.scale == pytest.approx(1.0)
    assert found.r_scaled > 0.4
    assert found.by_size < 1e-6


def test_a_mere_growth_is_no_loss_of_structure() -> None:
    near = ring_distances(circle(7))
    found = shattering(near, 29 * near)
    assert found.r == pytest.approx(28.0)
    assert found.r_scaled < 1e-6
    assert found.by_size == pytest.approx(1.0)


@given(st.integers(0, 1000), st.floats(0.01, 10))
def test_r_is_made_of_size_and_shape(seed: int, size: float) -> None:
    draw = generator(seed)
    one = ring_distances(torch.randn(6, 3, generator=draw))
    other = size * ring_distances(torch.randn(6, 3, generator=draw))
    r, r_scaled, scale = shattering(one, other)
    assert r**2 == pytest.approx((scale - 1) ** 2 + scale * r_scaled**2, rel=1e-9)
    assert 0 <= r_scaled <= math.sqrt(2)


def test_states_that_fall_together_have_lost_all() -> None:
    near = ring_distances(circle(5))
    assert shattering(near, torch.zeros(5, 5, dtype=torch.float64)) == pytest.approx((1.0, 1.0, 0.0))


def test_what_cannot_be_measured_is_refused() -> None:
    near = ring_distances(circle(5))
    with pytest.raises(ConfigError, match="one point"):
        shattering(0 * near, near)
    with pytest.raises(WidthMismatch, match="5 words before and 4 after"):
        shattering(near, near[:4, :4])
    with pytest.raises(TooFewSamples, match="ring of 3 words"):
        ring_order(near[:3, :3], cyclic_distances(torch.arange(3)))
    with pytest.raises(WidthMismatch, match="5 words and 6 places"):
        ring_order(near, cyclic_distances(torch.arange(6)))


def test_beside_drawn_updates() -> None:
    assert index_beside(0.6, torch.tensor([0.25, 0.5, 0.75])) == pytest.approx(1.2)
    assert math.isnan(index_beside(0.6, torch.zeros(2)))
    assert math.isnan(index_beside(0.6, torch.zeros(0)))
