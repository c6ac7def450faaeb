"""Readings of an edit: a blow-up told from a loss of structure, and every change beside that of drawn updates."""

import math

import pytest
import torch
from torch import Tensor

from perimetry.editing.health import (
    METRICS,
    Finding,
    HealthLimits,
    change,
    flag_of,
    mean_shattering,
    ring_findings,
)
from perimetry.editing.rings import ring_distances, shattering
from perimetry.errors import TooFewSamples
from perimetry.runtime import generator


def layers(n: int = 12, count: int = 2) -> Tensor:
    angle = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    ring = torch.stack([angle.cos(), angle.sin()], 1)
    noise = [0.05 * torch.randn(n, 2, generator=generator(i), dtype=torch.float64) for i in range(count)]
    return torch.stack([ring_distances(ring + e) for e in noise])


def test_flags_tell_size_from_shape() -> None:
    near = layers()[0]
    mixed = torch.randperm(12, generator=generator(0))
    lost = near[mixed][:, mixed]
    assert flag_of(shattering(near, near)) == "none"
    assert flag_of(shattering(near, 3 * near)) == "norm blow-up"
    assert flag_of(shattering(near, near / 3)) == "norm blow-up"
    assert flag_of(shattering(near, lost)) == "loss of structure"
    assert flag_of(shattering(near, 3 * lost)) == "both"
    assert flag_of(shattering(near, 1.1 * near), HealthLimits(size=0.05)) == "norm blow-up"


def test_a_ring_beside_drawn_updates() -> None:
    before = layers()
    found = {f.metric: f for f in ring_findings("months", before, 1.5 * before, [1.1 * before, 1.4 * before])}
    assert set(found) == {"ring_r", "ring_r_scaled", "ring_scale", "ring_order"} <= METRICS.keys()
    assert found["ring_r"].change == pytest.approx(0.5)
    assert found["ring_r"].drawn == pytest.approx((0.1, 0.4))
    assert found["ring_r"].times == pytest.approx(2.0)
    assert found["ring_scale"][2:5] == pytest.approx((1.0, 1.5, 0.5))
    assert found["ring_r_scaled"].change == pytest.approx(0.0, abs=1e-9)
    assert found["ring_order"].change == 0
    assert found["ring_order"].before > 0.9


def test_nothing_changed_is_zero_exactly() -> None:
    before = layers()
    assert [f.change for f in ring_findings("months", before, before.clone())] == [0.0, 0.0, 0.0, 0.0]


def test_layers_count_alike() -> None:
    before = layers()
    after = torch.stack([before[0], 2 * before[1]])
    assert mean_shattering(before, after).r == pytest.approx(0.5)
    with pytest.raises(TooFewSamples, match="no layer"):
        mean_shattering(before[:0], after[:0])


def test_changes_are_compared_by_their_size() -> None:
    found = change("siblings", "capitals", 0.5, 0.25, [0.625, 0.375])
    assert found == Finding("siblings", "capitals", 0.5, 0.25, -0.25, (0.125, -0.125))
    assert found.times == 2.0
    assert math.isnan(change("nll", "ordinary text", 3.0, 3.5).times)
