"""What a score says over a walk, by hand."""

import pytest
import torch

from perimetry.labs.graph_tracing.lists import _delay, partial_spearman


def test_what_norm_explains_is_taken_off() -> None:
    draw = torch.Generator().manual_seed(0)
    norm = torch.randn(400, generator=draw)
    step = norm + 0.3 * torch.randn(400, generator=draw)
    alike = norm + 0.3 * torch.randn(400, generator=draw)
    assert abs(partial_spearman(alike, step, norm)) < 0.15
    assert partial_spearman(step, step, norm) == pytest.approx(1.0)
    assert partial_spearman(step, step, step) == 0.0


def test_a_switch_that_shows_is_found_and_one_that_does_not_is_not() -> None:
    draw = torch.Generator().manual_seed(1)
    quiet = torch.randn(5, 400, generator=draw)
    loud = quiet.clone()
    loud[:, 210:] += 5
    found = {m.metric: m.value for m in _delay(loud, "x")}
    assert found["switch detected"] == 1.0
    assert found["detection delay"] <= 16
    silent = quiet.clone()
    silent[:, 200:] -= 5
    assert {m.metric: m.value for m in _delay(silent, "x")}["switch detected"] < 0.5
