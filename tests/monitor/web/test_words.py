"""Numbers as people read them."""

import math
from datetime import datetime, timedelta, timezone

from perimetry.monitor.web.words import count, interval, moment, number, percent, sure


def test_numbers() -> None:
    assert [number(x) for x in (0.0, 1.0, 12345.678, 1e-7, math.nan, math.inf, None)] == [
        *("0", "1", "1.235e+04", "1e-07", "–", "–", "–"),
    ]
    assert (count(0), count(1_234_567)) == ("0", "1\u202f234\u202f567")
    assert (percent(0.5), interval((0.0048, 0.017))) == ("50 %", "0.48 to 1.7 %")
    assert [sure(x) for x in (True, "1", None, [], math.inf, 2)] == [None, None, None, None, None, 2.0]


def test_moments_are_in_universal_time() -> None:
    there = datetime(2026, 1, 31, 13, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    assert moment(there) == "2026-01-31 12:00:05 UTC"
