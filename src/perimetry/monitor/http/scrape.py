"""Numbers that are read when Prometheus asks, not counted as they change."""

from collections.abc import Mapping
from typing import final

from prometheus_client import Counter

__all__ = ["Totals"]


@final
class Totals:
    """Sets a counter to a total that somebody else counts; it never goes back."""

    def __init__(self, counter: Counter) -> None:
        """`counter`: with one label, or with none."""
        self._counter = counter
        self._seen: dict[str, float] = {}

    def to(self, totals: Mapping[str, int | float]) -> None:
        """Totals by value of the label; of a counter without labels under the name "".

        >>> from prometheus_client import CollectorRegistry
        >>> registry = CollectorRegistry()
        >>> totals = Totals(Counter("lost_total", "Lost.", ("reason",), registry=registry))
        >>> totals.to({"full": 3}), totals.to({"full": 5}), registry.get_sample_value("lost_total", {"reason": "full"})
        (None, None, 5.0)
        """
        for name, total in totals.items():
            more = total - self._seen.get(name, 0.0)
            if more > 0:
                (self._counter.labels(name) if name else self._counter).inc(more)
                self._seen[name] = total
