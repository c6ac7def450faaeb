"""Alarms of a window of readings against the number that the false-alarm rate explains."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from perimetry.measures.stats import Interval, beta_interval
from perimetry.shift.conformal import false_alarm_interval

__all__ = ["AlarmBudget", "Stratum", "alarm_budget", "clopper_pearson"]


class Stratum(NamedTuple):
    """Prompts of a window that were judged against the same calibration scores."""

    clean: Float[Tensor, " calibration"]
    """Main scores of those calibration prompts."""
    seen: Float[Tensor, " window"]
    """Main scores of the prompts of the window."""
    alarms: int
    """How many of them were flagged."""
    fallback: bool
    """True where the group was too small and the pooled calibration was used."""


class AlarmBudget(NamedTuple):
    """Alarms of single prompts in a window."""

    alpha: float
    """The false-alarm rate at which they were counted."""
    expected: float
    """Alarms expected of clean prompts, in this window."""
    realised: int
    """Alarms found."""
    interval: Interval
    """The realised rate with its Clopper-Pearson interval (1934)."""
    excess: float
    """Alarms above the expected number, as a share of the prompts."""
    p_value: float
    """Chance of so many or more without drift, calibration and window both being random; at most, where scores tie."""
    exceeds: bool
    """Whether that chance is below .05: the window alone, its share of a budget over windows not counted."""


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Proportion with its exact interval (Clopper and Pearson 1934), which never covers too rarely.

    >>> clopper_pearson(0, 10).low, round(clopper_pearson(0, 10).high, 4)
    (0.0, 0.3085)
    """
    low = beta_interval(successes, n - successes + 1, confidence).low if successes else 0.0
    high = beta_interval(successes + 1, n - successes, confidence).high if successes < n else 1.0
    return Interval(successes / n, low, high, n, f"Clopper-Pearson {confidence * 100:g} %")


def _places(alpha: float, n: int, two_sided: bool) -> int:
    """Of the n + 1 places that a prompt can take among calibration scores, those in which it is flagged."""
    tails = 2 if two_sided else 1
    return tails * round(false_alarm_interval(alpha / tails, n).expected * (n + 1))


def _upper_tail(strata: Sequence[Stratum], alpha: float, two_sided: bool) -> float:
    """Chance of so many alarms or more: the sum of independent beta-binomial counts, one a group."""
    from scipy import stats  # late: takes most of a second

    law = np.ones(1)
    for stratum in strata:
        n, m = stratum.clean.numel(), stratum.seen.numel()
        k = _places(alpha, n, two_sided)
        # With k = 0 no prompt of the group can be flagged.
        own = stats.betabinom.pmf(np.arange(m + 1), m, k, n + 1 - k) if k else np.ones(1)
        law = np.convolve(law, own)
    return float(min(1.0, law[sum(s.alarms for s in strata) :].sum()))


def alarm_budget(strata: Sequence[Stratum], alpha: float, *, two_sided: bool = False) -> AlarmBudget:
    """Compare alarms with what calibration prompts of the same groups explain.

    Given n calibration prompts the number of false alarms in a group is beta-binomial (Vovk 2012), wider than the binomial
    law of a rate known for certain. Prompts judged against the pooled set depend on the others, so the two parts are
    joined by Bonferroni. Errors: `UsageError` for an alpha outside (0, 1).
    """
    prompts, realised = sum(s.seen.numel() for s in strata), sum(s.alarms for s in strata)
    rates = [_places(alpha, s.clean.numel(), two_sided) / (s.clean.numel() + 1) for s in strata]
    expected = sum(s.seen.numel() * rate for s, rate in zip(strata, rates, strict=True))
    parts = [[s for s in strata if s.fallback is side] for side in (False, True)]
    tails = [_upper_tail(part, alpha, two_sided) for part in parts if part]
    p = min(1.0, len(tails) * min(tails))
    return AlarmBudget(
        alpha=alpha,
        expected=expected,
        realised=realised,
        interval=clopper_pearson(realised, prompts),
        excess=(realised - expected) / prompts,
        p_value=p,
        exceeds=p < 0.05,
    )
