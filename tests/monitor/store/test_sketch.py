"""Sketches merge in any order, keep counts exactly, and quantiles to one part in a hundred."""

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.monitor.store.sketch import EMPTY, RELATIVE_ERROR, Sketch

values = st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), max_size=60)


@settings(deadline=None)
@given(values, values, values)
def test_merging_is_that_of_the_values(a: list[float], b: list[float], c: list[float]) -> None:
    whole, parts = Sketch.of(a + b + c), [Sketch.of(part) for part in (a, b, c)]
    left, right = parts[0].merge(parts[1]).merge(parts[2]), parts[2].merge(parts[1]).merge(parts[0])
    other = parts[0].merge(parts[1].merge(parts[2]))
    for found in (left, right, other):
        assert (found.n, found.bins, found.least, found.most) == (whole.n, whole.bins, whole.least, whole.most)
        scale = max([1.0, *map(abs, a + b + c)])
        assert abs(found.mean - whole.mean) <= 1e-12 * scale
        assert abs(found.squares - whole.squares) <= 1e-12 * scale**2 * max(1, whole.n)
    assert parts[0].merge(EMPTY) == parts[0] == EMPTY.merge(parts[0])


@settings(deadline=None)
@given(values)
def test_bytes_give_it_back(a: list[float]) -> None:
    sketch = Sketch.of(a)
    assert Sketch.from_bytes(sketch.to_bytes()) == sketch


def test_quantiles_are_off_by_a_hundredth_of_their_value() -> None:
    draw = random.Random(3)
    for spread in (lambda: draw.gauss(0, 1), lambda: draw.lognormvariate(0, 3), lambda: -draw.expovariate(1e-3)):
        found = sorted(spread() for _ in range(5_001))
        sketch = Sketch.of(found)
        for q in (0.0, 0.001, 0.05, 0.25, 0.5, 0.75, 0.95, 0.999, 1.0):
            true = found[int(q * 5_000)]
            assert abs(sketch.quantile(q) - true) <= RELATIVE_ERROR * abs(true) * (1 + 1e-9)
        assert sketch.mean == pytest.approx(statistics.fmean(found), rel=1e-12)
        assert sketch.squares == pytest.approx(statistics.pvariance(found) * 5_001, rel=1e-9)


def test_an_hour_of_scores_stays_small() -> None:
    draw = random.Random(4)
    assert len(Sketch.of(draw.gauss(8, 2) for _ in range(36_000)).to_bytes()) < 1_500


@pytest.mark.parametrize("spoil", [lambda d: b"", lambda d: d[:-1], lambda d: d + b"\x01", lambda d: b"\x09" + d[1:]])
def test_what_is_no_sketch_is_refused(spoil) -> None:
    with pytest.raises(ValueError, match="no sketch"):
        Sketch.from_bytes(spoil(Sketch.of([1.0, 2.0, -3.0]).to_bytes()))


def test_nothing_has_no_quantile() -> None:
    assert math.isnan(EMPTY.quantile(0.5))
    assert Sketch.of([]) == EMPTY
