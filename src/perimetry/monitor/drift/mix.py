"""Whether the groups come in other shares than in the calibration. Reported, and never an alarm: another mix may be as well understood."""

import numpy as np
from jaxtyping import Float, Int

from perimetry.measures.relabelling import Tested
from perimetry.monitor.drift.effects import Effect

__all__ = ["Mix", "group_mix"]

_RESAMPLES = 500
Counts = Int[np.ndarray, " group"]
Mix = tuple[Tested, Effect]
"""The test, and the total variation distance: the share of prompts that would have to change their group."""


def _variation(
    one: Float[np.ndarray, "draw group"], other: Float[np.ndarray, "draw group"]
) -> Float[np.ndarray, " draw"]:
    return 0.5 * np.abs(one / one.sum(-1, keepdims=True) - other / other.sum(-1, keepdims=True)).sum(-1)


def group_mix(clean: Counts, seen: Int[np.ndarray, " group"], draw: np.random.Generator) -> Mix:
    """Pearson's chi-square test of homogeneity, and the distance with a bootstrap interval. Both sides hold prompts.

    >>> tested, effect = group_mix(np.array([50, 50]), np.array([50, 50]), np.random.default_rng(0))
    >>> tested.p_value, effect.value
    (1.0, 0.0)
    """
    from scipy.special import chdtrc  # late, and only this: what the whole library costs at start is not needed

    met = (clean + seen) > 0
    table = np.stack([clean[met], seen[met]]).astype(float)
    sides = table.sum(1, keepdims=True)
    wanted = sides * table.sum(0) / table.sum()
    statistic = float(((table - wanted) ** 2 / wanted).sum())
    p = float(chdtrc(int(met.sum()) - 1, statistic)) if met.sum() > 1 else 1.0
    value = float(_variation(table[:1], table[1:])[0])
    drawn = [
        draw.multinomial(int(n), row / n, size=_RESAMPLES).astype(float)
        for row, n in zip(table, sides[:, 0], strict=True)
    ]
    low, high = np.quantile(_variation(drawn[0], drawn[1]), [0.025, 0.975])
    return Tested(statistic, p), Effect("total_variation", value, float(low), float(high))
