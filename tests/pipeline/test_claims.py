from typing import NamedTuple

import pytest

from perimetry.pipeline.claims import judged


class Row(NamedTuple):
    seed: int | None
    estimate: float
    low: float
    high: float
    n: int = 9


@pytest.mark.parametrize(
    ("low", "high", "sign", "bound", "verdict"),
    [
        (0.1, 0.3, 1, 0.0, "holds"),
        (-0.3, -0.1, 1, 0.0, "fails"),
        (-0.1, 0.3, 1, 0.0, "open"),
        (-0.3, -0.1, -1, 0.0, "holds"),
        (0.1, 0.3, 1, 0.5, "fails"),
        (0.6, 0.7, 1, 0.5, "holds"),
        (-0.02, 0.005, -1, 0.01, "holds"),
    ],
)
def test_the_whole_interval_decides(low: float, high: float, sign: int, bound: float, verdict: str) -> None:
    found = judged([Row(None, (low + high) / 2, low, high)], sign, bound)
    assert found is not None
    assert found["verdict"] == verdict


def test_seeds_are_counted_and_the_whole_is_wanted() -> None:
    rows = [Row(0, 0.2, 0, 1), Row(1, -0.2, -1, 0), Row(None, 0.1, -1, 1)]
    found = judged(rows, 1)
    assert found is not None
    assert (found["seeds"], found["seeds_so"], found["estimate"]) == (2, 1, 0.1)
    assert judged(rows[:2], 1) is None
