"""Numbers and moments as people read them."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

__all__ = ["count", "interval", "moment", "number", "percent", "sure"]


def number(value: float | None, digits: int = 4) -> str:
    """So many digits that count; a dash for none.

    >>> number(0.00099900), number(12.0), number(None)
    ('0.000999', '12', '–')
    """
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def count(value: int) -> str:
    """With thin gaps between thousands.

    >>> count(12345)
    '12\u202f345'
    """
    return f"{value:,}".replace(",", "\u202f")


def percent(value: float, digits: int = 3) -> str:
    """A share of 1.

    >>> percent(0.0048)
    '0.48 %'
    """
    return f"{100 * value:.{digits}g} %"


def interval(ends: Sequence[float]) -> str:
    """Two shares of 1.

    >>> interval((0.0048, 0.017))
    '0.48 to 1.7 %'
    """
    low, high = ends
    return f"{100 * low:.3g} to {100 * high:.3g} %"


def moment(when: datetime) -> str:
    """To the second, UTC."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def sure(value: object) -> float | None:
    """A finite number, or None for anything else.

    >>> sure(1), sure("1"), sure(float("nan"))
    (1.0, None, None)
    """
    plain = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if plain else None  # pyright: ignore[reportArgumentType]
