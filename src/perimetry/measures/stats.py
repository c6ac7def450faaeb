"""Estimates with intervals: means, proportions, correlations, bootstraps, and tests of equal distributions."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from scipy import special
from torch import Tensor

from perimetry.errors import NonFinite, TooFewSamples, UsageError

__all__ = [
    "Bounds",
    "Interval",
    "KolmogorovSmirnov",
    "beta_binomial_interval",
    "beta_interval",
    "bootstrap",
    "ks_two_sample",
    "ks_uniform",
    "mean_interval",
    "normal_quantile",
    "percentile_interval",
    "resample_counts",
    "spearman",
    "wilson",
]


class Interval(NamedTuple):
    """A reported number: no estimate goes out without its interval and its count."""

    estimate: float
    """The number."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""
    n: int
    """How many independent units it rests on."""
    method: str
    """How the interval was made, with its confidence: `bootstrap 95 %`."""


class Bounds(NamedTuple):
    """Two ends of an interval."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""


class KolmogorovSmirnov(NamedTuple):
    """Largest distance between two distribution functions."""

    statistic: float
    """In [0, 1]; 0 = alike."""
    p_value: float
    """Chance of such a distance when the distributions are the same."""


def normal_quantile(confidence: float) -> float:
    """Half width, in standard errors, of a two-sided normal interval.

    >>> round(normal_quantile(0.95), 2)
    1.96
    """
    if not 0 < confidence < 1:
        raise UsageError(f"confidence {confidence} is outside (0, 1); give, say, 0.95")
    return float(special.ndtri(0.5 + confidence / 2))


def _method(name: str, confidence: float) -> str:
    return f"{name} {confidence * 100:g} %"


def _need(values: Tensor, least: int, what: str) -> None:
    if values.shape[0] < least:
        raise TooFewSamples(f"{what} needs at least {least} values, got {values.shape[0]}; give more")
    if values.is_floating_point() and not bool(torch.isfinite(values).all()):
        raise NonFinite(f"{what} was given NaN or infinity; finite values are wanted")


def mean_interval(values: Float[Tensor, " n"], confidence: float = 0.95) -> Interval:
    """Mean with Student's t interval.

    >>> [round(x, 3) for x in mean_interval(torch.tensor([1.0, 2.0, 3.0]))[:3]]
    [2.0, -0.484, 4.484]
    """
    _need(values, 2, "a mean with an interval")
    exact, n = values.double(), values.numel()
    mean, error = float(exact.mean()), float(exact.std()) / math.sqrt(n)
    half = float(special.stdtrit(n - 1, 0.5 + confidence / 2)) * error
    return Interval(mean, mean - half, mean + half, n, _method("t", confidence))


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Proportion with Wilson's score interval (1927), good for small counts and at 0 and 1.

    >>> wilson(0, 10).low, round(wilson(0, 10).high, 3)
    (0.0, 0.278)
    """
    if not 0 <= successes <= n or n < 1:
        raise UsageError(f"{successes} successes of {n} is no proportion; wanted 0 <= successes <= n and n >= 1")
    z, share = normal_quantile(confidence), successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Interval(
        share, 0.0 if successes == 0 else low, 1.0 if successes == n else high, n, _method("Wilson", confidence)
    )


def beta_interval(a: int | float, b: int | float, confidence: float = 0.95) -> Bounds:
    """Equal-tailed interval of the Beta(a, b) distribution.

    >>> [round(x, 3) for x in beta_interval(1, 1)]
    [0.025, 0.975]
    """
    tail = (1 - confidence) / 2
    return Bounds(float(special.betaincinv(a, b, tail)), float(special.betaincinv(a, b, 1 - tail)))


def beta_binomial_interval(n: int, a: int | float, b: int | float, confidence: float = 0.95) -> Bounds:
    """Equal-tailed interval of a beta-binomial share: count of n whose chance was drawn from Beta(a, b), over n.

    >>> beta_binomial_interval(4, 1, 1)
    Bounds(low=0.0, high=1.0)
    """
    from scipy import stats  # late: takes most of a second

    tail = (1 - confidence) / 2
    law = stats.betabinom(n, a, b)
    return Bounds(float(law.ppf(tail)) / n, float(law.ppf(1 - tail)) / n)


def resample_counts(n: int, resamples: int, draw: torch.Generator) -> Float[Tensor, "resample n"]:
    """How often each of n units is drawn in each bootstrap resample; every row sums to n."""
    picks = torch.randint(0, n, (resamples, n), generator=draw)
    return torch.zeros(resamples, n).scatter_add_(1, picks, torch.ones(resamples, n))


def percentile_interval(
    estimate: float, draws: Float[Tensor, " resample"], n: int, name: str, confidence: float = 0.95
) -> Interval:
    """The interval between two quantiles of the bootstrap draws (undefined draws left out)."""
    draws = draws.double()
    draws = draws[torch.isfinite(draws)]
    tail = (1 - confidence) / 2
    low, high = torch.quantile(draws, draws.new_tensor([tail, 1 - tail])).tolist()
    return Interval(estimate, low, high, n, _method(name, confidence))


def bootstrap(
    values: Shaped[Tensor, "n ..."],
    statistic: Callable[[Tensor], float],
    draw: torch.Generator,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Any statistic of the rows of `values`, with a percentile bootstrap interval (Efron 1979).

    Rows are the independent units: put what belongs together into one row.
    """
    _need(values, 2, "a bootstrap")
    n = values.shape[0]
    picks = torch.randint(0, n, (resamples, n), generator=draw)
    draws = torch.tensor([statistic(values[rows]) for rows in picks], dtype=torch.float64)
    return percentile_interval(statistic(values), draws, n, "bootstrap", confidence)


def _midranks(values: Tensor) -> Tensor:
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum(0).double() - (counts.double() - 1) / 2)[inverse]


def spearman(a: Float[Tensor, " n"], b: Float[Tensor, " m"], confidence: float = 0.95) -> Interval:
    """Spearman's rank correlation, ties by midranks, with Fisher's z interval in the form of Bonett and Wright (2000).

    1 = the ranks agree. A constant input has no ranks to compare and gives 0 with the interval [-1, 1].

    >>> spearman(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 2.0, 4.0, 3.0])).estimate
    0.8
    """
    _need(a, 4, "a rank correlation")
    _need(b, 4, "a rank correlation")
    if a.shape != b.shape:
        raise UsageError(f"a rank correlation needs two equally long inputs, got {a.numel()} and {b.numel()}")
    x, y = _midranks(a) - (a.numel() + 1) / 2, _midranks(b) - (a.numel() + 1) / 2
    scale = float((x.square().sum() * y.square().sum()).sqrt())
    if scale == 0:
        return Interval(0.0, -1.0, 1.0, a.numel(), _method("Fisher z", confidence))
    r = float((x * y).sum()) / scale
    half = normal_quantile(confidence) * math.sqrt((1 + r * r / 2) / (a.numel() - 3))
    z = math.atanh(max(-1 + 1e-15, min(1 - 1e-15, r)))
    return Interval(r, math.tanh(z - half), math.tanh(z + half), a.numel(), _method("Fisher z", confidence))


def ks_two_sample(a: Float[Tensor, " n"], b: Float[Tensor, " m"]) -> KolmogorovSmirnov:
    """Whether two samples come from one distribution; asymptotic p-value.

    >>> ks_two_sample(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])).statistic
    1.0
    """
    _need(a, 1, "a Kolmogorov-Smirnov test")
    _need(b, 1, "a Kolmogorov-Smirnov test")
    both = torch.cat([a, b]).double()
    left = torch.searchsorted(a.double().sort().values, both, side="right").double() / a.numel()
    right = torch.searchsorted(b.double().sort().values, both, side="right").double() / b.numel()
    distance = float((left - right).abs().max())
    size = math.sqrt(a.numel() * b.numel() / (a.numel() + b.numel()))
    return KolmogorovSmirnov(distance, float(special.kolmogorov(size * distance)))


def ks_uniform(p_values: Float[Tensor, " n"]) -> KolmogorovSmirnov:
    """Whether values in [0, 1] are uniform; asymptotic p-value.

    >>> round(ks_uniform(torch.tensor([0.25, 0.75])).statistic, 3)
    0.25
    """
    _need(p_values, 1, "a Kolmogorov-Smirnov test")
    ranked, n = p_values.double().sort().values, p_values.numel()
    step = torch.arange(n, dtype=torch.float64) / n
    distance = float(torch.maximum((step + 1 / n - ranked).max(), (ranked - step).max()))
    return KolmogorovSmirnov(distance, float(special.kolmogorov(math.sqrt(n) * distance)))
