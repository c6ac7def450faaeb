"""What the interval of a number, or of a difference, allows to say of a claim."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

__all__ = ["judged"]


@runtime_checkable
class _Measured(Protocol):
    """A row of results."""

    @property
    def seed(self) -> int | None: ...
    @property
    def estimate(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def n(self) -> int: ...


def judged(rows: Sequence[_Measured], sign: int, bound: float = 0.0) -> dict[str, Any] | None:
    """The number over all seeds and its verdict: `holds` where the whole interval lies on the side of the bound that `sign` says (+1:
    above), `fails` where on the other, else `open`; in how many seeds it lies there. None where no row is of all seeds."""
    whole = next((row for row in rows if row.seed is None), None)
    if whole is None:
        return None
    low, high = sorted((sign * (whole.low - bound), sign * (whole.high - bound)))
    seeds = [sign * (row.estimate - bound) > 0 for row in rows if row.seed is not None]
    return {
        **{"estimate": whole.estimate, "low": whole.low, "high": whole.high, "n": whole.n},
        **{"seeds": len(seeds), "seeds_so": sum(seeds)},
        "verdict": "holds" if low > 0 else "fails" if high < 0 else "open",
    }
