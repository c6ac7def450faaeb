"""From the scores of tokens to nine classes of heat, h0 to h8."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

__all__ = ["CLASSES", "Heat", "heat_of"]

CLASSES: Final = 9
"""Classes of heat; 0 is coldest."""
_DEVIATIONS: Final = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)
"""Where classes 1 to 8 begin, in standard deviations above a clean token."""


class Heat(NamedTuple):
    """Where each class begins."""

    edges: tuple[float, ...]
    """Least scores of the classes 1 to 8, ascending."""
    why: str
    """What they were taken from, in words."""

    def level(self, score: float) -> int:
        """Class of a score.

        >>> Heat((1.0, 2.0), "").level(1.5), Heat((1.0, 2.0), "").level(2.0)
        (1, 2)
        """
        return bisect_right(self.edges, score)


def heat_of(clean: Mapping[str, Any], scores: Sequence[float]) -> Heat:
    """Classes by the scores of clean tokens (`mean` and `sd` of `clean`) where they are known, else by those of this text alone.

    >>> heat_of({"mean": 1.0, "sd": 2.0}, [])[0][:3]
    (2.0, 3.0, 4.0)
    >>> heat_of({}, [0.0, 9.0])[0][:3]
    (1.0, 2.0, 3.0)
    """
    mean, sd = clean.get("mean"), clean.get("sd")
    if isinstance(mean, int | float) and isinstance(sd, int | float) and math.isfinite(mean) and sd > 0:
        edges = tuple(float(mean + z * sd) for z in _DEVIATIONS)
        return Heat(edges, f"clean tokens score {mean:.4g} ± {sd:.3g}; h1 begins half a deviation above, h8 six above")
    low, high = (min(scores), max(scores)) if scores else (0.0, 1.0)
    step = (high - low or 1.0) / CLASSES
    edges = tuple(low + k * step for k in range(1, CLASSES))
    return Heat(edges, "equal steps from the least to the greatest token score of this text")
