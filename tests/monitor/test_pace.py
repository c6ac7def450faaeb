"""What a batch costs is learned from batches, and small ones do not make a worker look slow."""

import pytest

from perimetry.monitor.pace import Pace


def test_fixed_and_growing_costs_are_told_apart() -> None:
    pace = Pace()
    for tokens in (10, 500, 60, 2000, 900) * 4:
        pace.observe(tokens, 0.02 + tokens * 1e-4)
    assert pace.batch(1000) == pytest.approx(0.12, rel=1e-6)
    assert pace.work(3, 3000) == pytest.approx(0.36, rel=1e-6)


def test_batches_of_one_size_count_as_fixed_cost() -> None:
    pace = Pace()
    for _ in range(50):
        pace.observe(10, 0.02)
    assert pace.tokens_per_second == pytest.approx(500)
    assert pace.batch(10_000) == pytest.approx(0.02)


def test_the_worker_may_become_slower() -> None:
    pace = Pace()
    for factor in (1, 10):
        for tokens in (100, 200) * 40:
            pace.observe(tokens, factor * tokens * 1e-3)
    assert pace.batch(150) == pytest.approx(1.5, rel=0.05)


def test_no_cost_is_negative() -> None:
    falling, late = Pace(), Pace()
    for tokens, seconds in ((100, 0.5), (1000, 0.1), (150, 0.4)):
        falling.observe(tokens, seconds)
    for tokens, seconds in ((1000, 0.001), (2000, 1.0)):
        late.observe(tokens, seconds)
    assert falling.batch(10**6) == falling.batch(1)
    assert (late.batch(1) or 0) >= 0
