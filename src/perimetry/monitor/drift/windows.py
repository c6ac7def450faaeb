"""One window against the calibration: three tests, each with the size of what it found."""

from typing import Any, NamedTuple

import numpy as np

from perimetry.measures.relabelling import Tested, ks_within_groups, relabeller
from perimetry.monitor.drift.drift_config import DriftConfig
from perimetry.monitor.drift.effects import Effect, stratified_auroc, wasserstein, wasserstein_effect
from perimetry.monitor.drift.mix import group_mix
from perimetry.monitor.drift.reference import Reference, WindowRows

__all__ = ["Judgement", "judge_window"]


class Judgement(NamedTuple):
    """What one test says of a window."""

    name: str
    """`ks`, `mmd` or `group_mix`."""
    tested: Tested
    """Statistic and p-value."""
    effect: Effect
    """How large the difference is."""
    over: bool
    """Whether it is both beyond chance and large enough to matter."""

    @property
    def alarms(self) -> bool:
        """Whether it counts towards an alarm."""
        return self.over and self.name != "group_mix"

    def said(self) -> dict[str, Any]:
        """In the words of the contract."""
        return {
            "name": self.name,
            "statistic": self.tested.statistic,
            "p_value": self.tested.p_value,
            "effect": self.effect.value,
            "effect_ci95": [self.effect.low, self.effect.high],
            "over": self.over,
            "effect_name": self.effect.name,
        }


def _ranks(reference: Reference, rows: WindowRows, draw: np.random.Generator, config: DriftConfig) -> Judgement | None:
    groups = reference.ranked(rows)
    if not groups:
        return None
    tested = ks_within_groups(groups, relabeller(draw), config.permutations)
    effect = stratified_auroc(groups)
    moved, far = abs(effect.value - 0.5) >= config.auroc_gap, wasserstein(groups) >= config.wasserstein
    if far and not moved:
        effect = wasserstein_effect(groups, draw)
    return Judgement("ks", tested, effect, tested.p_value <= config.level and (moved or far))


def _summaries(
    reference: Reference, rows: WindowRows, draw: np.random.Generator, config: DriftConfig
) -> Judgement | None:
    if reference.summaries is None:
        return None
    found = reference.summaries.judge(rows.summaries, rows.group, draw, config.permutations)
    if found is None:
        return None
    over = found.tested.p_value <= config.level and found.effect.value >= config.witness
    return Judgement("mmd", found.tested, found.effect, over)


def judge_window(reference: Reference, rows: WindowRows, number: int, config: DriftConfig) -> list[Judgement]:
    """What the tests say of window `number`, which together with the seed decides all that is drawn.

    A test that nothing can be compared in is left out.
    """
    ranks, summaries, mix = np.random.default_rng([config.seed, number]).spawn(3)
    tested, effect = group_mix(*reference.mixed(rows), mix)
    found = [
        _ranks(reference, rows, ranks, config),
        _summaries(reference, rows, summaries, config),
        Judgement("group_mix", tested, effect, tested.p_value <= config.level and effect.value >= config.mix),
    ]
    return [one for one in found if one is not None]
