"""The search for a value, against objectives whose answers are known."""

import pytest
import torch
from torch import Tensor

from perimetry.editing.values import BLOCK_VALUE, Terms, ValueConfig, find_value
from perimetry.errors import NonFinite


def test_it_stops_when_the_loss_is_small_enough() -> None:
    seen: list[float] = []

    def objective(delta: Tensor) -> Terms:
        seen.append(float(delta.detach()[0]))
        return Terms((delta[0] - 1).square(), 0 * delta.sum())

    found = find_value(torch.tensor([2.0, 0.0]), objective, ValueConfig(enough=0.3, decay=0.0))
    assert seen == [0.0, pytest.approx(0.5, abs=1e-5)]
    assert float(found[0]) == pytest.approx(2.5, abs=1e-5)


def test_delta_is_never_longer_than_allowed() -> None:
    start = torch.tensor([3.0, 4.0])
    far = torch.tensor([100.0, 0.0])
    lengths: list[float] = []

    def objective(delta: Tensor) -> Terms:
        lengths.append(float(delta.detach().norm()))
        return Terms((delta - far).square().sum(), 0 * delta.sum())

    found = find_value(start, objective, BLOCK_VALUE)
    assert float((found - start).norm()) == pytest.approx(0.75 * 5, rel=1e-5)
    assert max(lengths) <= 0.75 * 5 * (1 + 1e-6)
    assert len(lengths) == BLOCK_VALUE.steps


def test_penalties_hold_back() -> None:
    start, wanted = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])

    def reach(config: ValueConfig) -> float:
        found = find_value(start, lambda d: Terms((d - wanted).square().sum(), d.square().sum()), config)
        return float((found - start).norm())

    free = reach(ValueConfig(kl=0.0, decay=0.0, enough=1e-9, steps=200))
    assert free == pytest.approx(2.0, abs=1e-2)
    # (d - 2)^2 + d^2 is least at 1; (d - 2)^2 + 2 d at 1.
    assert reach(ValueConfig(kl=1.0, decay=0.0, steps=200)) == pytest.approx(1.0, abs=1e-2)
    assert reach(ValueConfig(kl=0.0, decay=2.0, steps=200)) == pytest.approx(1.0, abs=1e-2)


def test_the_start_is_not_changed_and_keeps_its_dtype() -> None:
    start = torch.tensor([1.0, 2.0], dtype=torch.float64)
    found = find_value(start, lambda d: (d.sum().square() + 1, 0 * d.sum()))
    assert found.dtype == torch.float64
    assert start.tolist() == [1.0, 2.0]
    assert torch.equal(find_value(start, lambda d: (d.sum() + 1, 0 * d.sum()), ValueConfig(steps=0)), start)


def test_a_loss_that_is_no_number_is_an_error() -> None:
    with pytest.raises(NonFinite, match="step 0"):
        find_value(torch.ones(2), lambda d: (d.sum() + torch.inf, 0 * d.sum()))
