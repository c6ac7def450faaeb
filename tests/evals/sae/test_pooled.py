"""Several seeds together: the interval holds what units and what seeds move."""

import pytest
import torch

from perimetry.errors import Incompatible, TooFewSamples
from perimetry.evals.sae.pooled import difference_over_seeds, over_seeds, pooled
from perimetry.evals.sae.units import Cell, Units, difference, interval, means
from perimetry.runtime import generator

NAMES = [f"unit {i}" for i in range(40)]


def seeds(offsets: tuple[float, ...], noise: float = 0.05, seed: int = 0) -> list[Units]:
    base = torch.randn(40, generator=generator(seed)) * noise
    return [means(Cell("auroc"), NAMES, 0.5 + base + offset) for offset in offsets]


def test_seeds_that_agree_leave_the_interval_of_the_units() -> None:
    found = seeds((0.0, 0.0, 0.0))
    both, alone = over_seeds(found), interval(pooled(found))
    assert both.estimate == pytest.approx(alone.estimate)
    assert both.high - both.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert both.n == 40


def test_seeds_that_lie_apart_widen_it_to_theirs() -> None:
    found = seeds((-0.2, 0.0, 0.2))
    both, alone = over_seeds(found), interval(pooled(found))
    assert both.high - both.low > 5 * (alone.high - alone.low)
    # Three seeds alone: Student with two degrees of freedom, 4.30 times .2 / sqrt(3).
    assert (both.high - both.low) / 2 == pytest.approx(4.303 * 0.2 / 3**0.5, rel=0.05)


def test_a_difference_counts_seeds_and_units() -> None:
    one, two = seeds((0.10, 0.11, 0.12)), seeds((0.0, 0.0, 0.0))
    gap = difference_over_seeds(one, two)
    assert gap.estimate == pytest.approx(0.11)
    assert 0 < gap.low < 0.11 < gap.high
    assert gap.p_value < 0.01
    wide = difference_over_seeds(seeds((-0.1, 0.0, 0.4)), two)
    assert wide.low < 0 < wide.high
    assert wide.p_value > 0.1
    narrow = difference(pooled(seeds((-0.1, 0.0, 0.4))), pooled(two))
    assert narrow.low > 0, "units alone would have called it a finding"


def test_coverage_over_draws_of_units_and_seeds() -> None:
    hits = 0
    for trial in range(150):
        draw = generator(trial)
        units = torch.randn(30, generator=draw) * 0.1
        found = [
            means(
                Cell("auroc"),
                NAMES[:30],
                units + 0.1 * torch.randn(1, generator=draw) + 0.02 * torch.randn(30, generator=draw),
            )
            for _ in range(3)
        ]
        box = over_seeds(found)
        hits += box.low <= 0 <= box.high
    assert 0.9 < hits / 150 <= 1


def test_one_seed_is_as_without_seeds_and_what_does_not_pair_is_refused() -> None:
    one, two = seeds((0.1,)), seeds((0.0,), seed=1)
    assert over_seeds(one) == interval(one[0])
    assert difference_over_seeds(one, two) == difference(one[0], two[0])
    same = difference_over_seeds(seeds((0.0, 0.0)), seeds((0.0, 0.0)))
    assert (same.estimate, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    with pytest.raises(Incompatible, match="1 and 2 seeds"):
        difference_over_seeds(one, seeds((0.0, 0.1)))
    with pytest.raises(TooFewSamples):
        difference_over_seeds(one, [means(Cell("auroc"), ["other"], torch.ones(1))])
