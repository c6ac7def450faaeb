"""How much a window differs from the calibration, in numbers that do not grow with the window, within groups."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float

from perimetry.measures.relabelling import Group

__all__ = ["Effect", "scaled", "stratified_auroc", "wasserstein", "wasserstein_effect"]

_Z: Final = 1.959964
_RESAMPLES: Final = 200
Sample = Float[np.ndarray, " n"]


class Effect(NamedTuple):
    """The size of a difference."""

    name: str
    """What is measured."""
    value: float
    """How large it is."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""


def _below(values: Sample, others: Float[np.ndarray, " m"]) -> Sample:
    """For each value the share of the others below it, those alike counted half."""
    ranked = np.sort(others)
    return (np.searchsorted(ranked, values, "left") + np.searchsorted(ranked, values, "right")) / (2 * others.size)


def stratified_auroc(groups: Sequence[Group]) -> Effect:
    """Chance that a prompt of the window scores above a calibration prompt of its own group; .5 = alike.

    The interval is that of DeLong (1988), with groups as strata. At least one group has prompts on both sides.

    >>> stratified_auroc([(np.array([1.0, 2.0]), np.array([2.0, 3.0]))]).value
    0.875
    """
    groups = [(clean, seen) for clean, seen in groups if clean.size and seen.size]
    window = sum(seen.size for _, seen in groups)
    value = variance = 0.0
    for clean, seen in groups:
        share, above = seen.size / window, _below(seen, clean)
        value += share * float(above.mean())
        for placed in (above, 1 - _below(clean, seen)):
            variance += share**2 * float(placed.var()) / max(1, placed.size - 1)
    half = _Z * variance**0.5
    return Effect("auroc", value, max(0.0, value - half), min(1.0, value + half))


def scaled(groups: Sequence[Group]) -> list[Group]:
    """Both sides of each group in robust standard deviations (1.4826 median absolute deviations) from its calibration median."""
    found: list[Group] = []
    for clean, seen in groups:
        middle = float(np.median(clean))
        spread = 1.4826 * float(np.median(np.abs(clean - middle))) or float(clean.std()) or 1.0
        found.append(((clean - middle) / spread, (seen - middle) / spread))
    return found


def _distances(
    values: Sample, clean: Float[np.ndarray, "draw n"], seen: Float[np.ndarray, "draw n"]
) -> Float[np.ndarray, " draw"]:
    """Area between the distribution functions of two weightings of sorted values."""
    return np.abs(np.cumsum(seen - clean, axis=1)[:, :-1]) @ np.diff(values)


def wasserstein(groups: Sequence[Group]) -> float:
    """Wasserstein-1 distance of the scaled scores, calibration prompts weighed as their groups are in the window.

    >>> round(wasserstein([(np.array([-1.0, 0.0, 1.0]), np.array([0.4826, 1.4826, 2.4826]))]), 4)
    1.0
    """
    return wasserstein_effect(groups, None).value


def wasserstein_effect(groups: Sequence[Group], draw: np.random.Generator | None) -> Effect:
    """The same distance with a bootstrap interval, or without one where there is nothing to draw from."""
    groups = [(clean, seen) for clean, seen in scaled(groups) if clean.size and seen.size]
    window = sum(seen.size for _, seen in groups)
    values = np.concatenate([np.concatenate(group) for group in groups])
    resamples = 0 if draw is None else _RESAMPLES
    of_clean, of_seen = np.zeros((2, 1 + resamples, values.size))
    start = 0
    for clean, seen in groups:
        middle, stop = start + clean.size, start + clean.size + seen.size
        of_clean[:, start:middle] = seen.size / window / clean.size
        of_seen[:, middle:stop] = 1 / window
        if draw is not None:
            for weights, first, last in ((of_clean, start, middle), (of_seen, middle, stop)):
                n = last - first
                weights[1:, first:last] *= draw.multinomial(n, np.full(n, 1 / n), size=resamples)
        start = stop
    order = np.argsort(values, kind="stable")
    found = _distances(values[order], of_clean[:, order], of_seen[:, order])
    low, high = np.quantile(found[1:], [0.025, 0.975]) if resamples else (found[0], found[0])
    return Effect("wasserstein1", float(found[0]), float(low), float(high))
