"""Seconds to an error, read off a curve."""

from types import ModuleType

import pytest

MODULE = "_training"


def test_the_time_lies_between_two_looks(module: ModuleType) -> None:
    curve = [module.Point(1, 1.0, 0.8), module.Point(2, 3.0, 0.4), module.Point(3, 4.0, 0.39)]
    assert module.reached(curve, 0.6) == pytest.approx(2.0)
    assert module.reached(curve, 0.4) == pytest.approx(3.0)


def test_what_was_never_reached_or_reached_before_the_first_look_has_no_time(module: ModuleType) -> None:
    curve = [module.Point(1, 1.0, 0.8), module.Point(2, 2.0, 0.7)]
    assert module.reached(curve, 0.5) is None
    assert module.reached(curve, 0.9) is None
    assert module.reached(curve[:1], 0.8) is None
