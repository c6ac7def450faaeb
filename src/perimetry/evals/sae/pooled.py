"""One number of several dictionaries together, unit by unit: seeds of one recipe measured on the same units.

A bootstrap over units alone says how far the number would move on other documents or sets, for these very dictionaries. What a recipe
gives moves with the seed as well. So the interval of several seeds adds two half-widths in squares: Student's of the units, with the
variance of the bootstrap over units of all seeds together, and Student's of the mean over seeds. With three seeds that lie apart it is
wide, as it should be; where a unit moves with the seed, both parts hold that, and it is a little too wide. Satterthwaite's degrees of
freedom were tried in place of the two: with three seeds they cover 88 % where 95 % are wanted.
"""

import math
from collections.abc import Sequence
from statistics import variance
from typing import Final, NamedTuple

import torch
from scipy import optimize, stats
from torch import Tensor

from perimetry.errors import Incompatible
from perimetry.evals.sae.units import CONFIDENCE, Units, difference, interval, paired, resampled
from perimetry.measures.ranking import Difference
from perimetry.measures.stats import Interval

__all__ = ["difference_over_seeds", "over_seeds", "pooled"]

METHOD: Final = "Student's interval of units and seeds together"


def pooled(found: Sequence[Units]) -> Units:
    """The sums of several dictionaries added up by unit, so that resampling keeps a unit together whichever dictionary it is seen in.

    Units that one of them lacks are left out. Of a mean over units this is the mean over dictionaries as well. Errors: `Incompatible`
    for two different numbers.

    >>> from perimetry.evals.sae.units import Cell, means
    >>> one, two = (means(Cell("f1"), ["a", "b"], torch.tensor(x)) for x in ([0.5, 0.7], [0.7, 0.9]))
    >>> round(pooled([one, two]).estimate(), 6)
    0.7
    """
    cells = {(units.cell, units.complement) for units in found}
    if len(cells) != 1:
        raise Incompatible(
            f"{len(cells)} different numbers cannot be pooled: {sorted(map(str, cells))[:3]}; give the same one of each"
        )
    others = [set(units.names) for units in found[1:]]
    common = [name for name in found[0].names if all(name in names for names in others)]
    over, under = torch.zeros(len(common), dtype=torch.float64), torch.zeros(len(common), dtype=torch.float64)
    for units in found:
        place = {name: i for i, name in enumerate(units.names)}
        rows = torch.tensor([place[name] for name in common], dtype=torch.long)
        over, under = over + units.over[rows], under + units.under[rows]
    return found[0]._replace(names=tuple(common), over=over, under=under)


class _Box(NamedTuple):
    low: float
    high: float
    p_value: float


def _student(estimate: float, draws: Tensor, units: int, by_seed: Sequence[float]) -> _Box:
    """Ends around the estimate, and the p-value of 0."""
    known = draws[draws.isfinite()]
    parts = [
        (float(known.var()) if known.numel() > 1 else 0.0, units - 1),
        (variance(by_seed) / len(by_seed), len(by_seed) - 1),
    ]
    if not any(part for part, _ in parts):
        return _Box(estimate, estimate, 1.0 if estimate == 0 else 0.0)

    def half(doubt: float) -> float:
        return math.sqrt(sum(part * float(stats.t.isf(doubt / 2, freedom)) ** 2 for part, freedom in parts))

    width = half(1 - CONFIDENCE)
    least = 1e-12
    beyond = half(least) <= abs(estimate)
    # The largest doubt at which the interval still reaches 0.
    p_value = (
        least if beyond else optimize.root_scalar(lambda doubt: half(doubt) - abs(estimate), bracket=(least, 1.0)).root
    )
    return _Box(estimate - width, estimate + width, p_value)


def over_seeds(found: Sequence[Units]) -> Interval:
    """The number of several seeds together, with an interval for units and seeds; of one seed as `interval`. Errors: as `pooled`."""
    whole = pooled(found)
    if len(found) < 2 or len(whole.names) < 2:
        return interval(whole)
    box = _student(whole.estimate(), resampled(whole), len(whole.names), [units.estimate() for units in found])
    return Interval(whole.estimate(), box.low, box.high, len(whole.names), METHOD)


def difference_over_seeds(first: Sequence[Units], second: Sequence[Units]) -> Difference:
    """How much the first number is above the second, seed by seed of the same order and on the units that all have.

    Of one seed as `difference`. Errors: as there, and as `pooled`.
    """
    if len(first) != len(second):
        raise Incompatible(f"{len(first)} and {len(second)} seeds; wanted the same ones of both")
    if len(first) < 2:
        return difference(pooled(first), pooled(second))
    whole = paired(pooled(first), pooled(second))
    gaps = [paired(a, b).gap for a, b in zip(first, second, strict=True)]
    n = len(whole.first.names)
    box = _student(whole.gap, whole.draws(), n, gaps)
    return Difference(whole.gap, box.low, box.high, box.p_value, n, METHOD)
