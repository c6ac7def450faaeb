"""The arithmetic of false alarms, without numpy: intervals on the realised rate, and several texts judged together."""

import math
from collections.abc import Sequence
from functools import lru_cache

__all__ = ["beta_quantile", "discoveries", "fpr_interval"]

_SLACK = 1e-9
"""Keeps .29 * 100 = 28.999999999999996 from deciding."""


def _continued(a: float, b: float, x: float) -> float:
    """Lentz's continued fraction of the incomplete beta function; converges fast for x < (a + 1) / (a + b + 2)."""
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1.0 / (d if abs(d) > tiny else tiny)
    total = d
    for m in range(1, 10_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + numerator * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + numerator / c
            c = c if abs(c) > tiny else tiny
            total *= d * c
        if abs(d * c - 1.0) < 1e-14:
            break
    return total


def _beta_below(a: float, b: float, x: float) -> float:
    """Probability that a Beta(a, b) variable is at most `x`."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _continued(a, b, x) / a
    return 1.0 - front * _continued(b, a, 1.0 - x) / b


def beta_quantile(a: float, b: float, q: float) -> float:
    """The value below which a Beta(a, b) variable lies with probability `q`, to 1e-12.

    >>> round(beta_quantile(10.0, 991.0, 0.025), 5), round(beta_quantile(10.0, 991.0, 0.975), 5)
    (0.00481, 0.01702)
    """
    low, high = 0.0, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if _beta_below(a, b, middle) < q else (low, middle)
    return (low + high) / 2


@lru_cache(maxsize=4096)
def fpr_interval(alpha: float, n: int) -> tuple[float, float]:
    """95 % interval on the realised false-alarm rate at `alpha`, over calibration sets of `n` prompts.

    With k = floor(alpha * (n + 1)) the rate is Beta(k, n + 1 - k). Needs k >= 1: below that nothing is flagged and the rate is 0.

    >>> [round(100 * end, 2) for end in fpr_interval(0.01, 1000)]
    [0.48, 1.7]
    >>> fpr_interval(0.001, 99)
    (0.0, 0.0)
    """
    k = math.floor(alpha * (n + 1) + _SLACK)
    if k < 1:
        return 0.0, 0.0
    return beta_quantile(float(k), float(n + 1 - k), 0.025), beta_quantile(float(k), float(n + 1 - k), 0.975)


def discoveries(p_values: Sequence[float], q: float) -> list[int]:
    """Which of several texts are rejected such that the false discovery rate is at most `q` (Benjamini and Hochberg 1995).

    Valid for conformal p-values that share one calibration set, which depend positively (Bates et al. 2023).

    >>> discoveries([0.01, 0.5, 0.02, 0.04], 0.05)
    [0, 2]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    least = 0
    for rank, i in enumerate(order, start=1):
        if p_values[i] * len(order) <= q * rank * (1 + _SLACK):
            least = rank
    return sorted(order[:least])
