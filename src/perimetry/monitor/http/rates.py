"""How often one key may ask."""

import math
from collections import OrderedDict
from typing import final

from perimetry.monitor.problems import Problem

__all__ = ["Rates"]


@final
class Rates:
    """A bucket of requests a key, which fills at a steady rate."""

    def __init__(self, rate_per_s: float, burst: int, most_keys: int = 4096) -> None:
        """`burst`: what a full bucket holds. `most_keys`: how many are remembered; one that is forgotten is full again."""
        self._rate, self._burst, self._most = rate_per_s, float(burst), most_keys
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> None:
        """Take one request at a time in seconds. Errors: `Problem` of `rate-limited`, with the time until there is one.

        >>> rates = Rates(2.0, 1)
        >>> rates.take("a", 0.0); rates.take("b", 0.0); rates.take("a", 0.5)
        """
        left, since = self._left.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        allowed = left >= 1.0
        self._left[key] = (left - 1.0 if allowed else left, now)
        while len(self._left) > self._most:
            self._left.popitem(last=False)
        if not allowed:
            raise Problem("rate-limited", retry_after_s=max(1, math.ceil((1.0 - left) / self._rate)))
