"""The calibration's side of drift: the scores of its prompts by group, and their summaries."""

from typing import Final, NamedTuple, final

import numpy as np
from jaxtyping import Float, Int

from perimetry.measures.relabelling import Group
from perimetry.monitor.baseline import Baseline
from perimetry.monitor.drift.drift_config import DriftConfig
from perimetry.monitor.drift.mmd import SummaryTest

__all__ = ["STRANGE", "Reference", "WindowRows"]

STRANGE: Final = -1
"""Place of a group that the calibration does not know."""


class WindowRows(NamedTuple):
    """The prompts of a window."""

    group: Int[np.ndarray, " prompt"]
    """Place of the group of each, or `STRANGE`."""
    summaries: Float[np.ndarray, "prompt column"]
    """The summary of each; the first column is the score that is ranked."""


@final
class Reference:
    """Made once from what the worker tells."""

    def __init__(self, baseline: Baseline, config: DriftConfig) -> None:
        self.width = baseline.width
        self.places = {name: place for place, name in enumerate(baseline.groups)}
        """Place of each group by its name."""
        self.rates = np.frombuffer(baseline.rates, np.float32).astype(np.float64)
        """Share of clean tokens on which each concept fires; empty where it is not known."""
        group = np.frombuffer(baseline.group, np.int32).astype(np.int64)
        vectors = np.frombuffer(baseline.summaries, np.float32).reshape(-1, self.width).astype(np.float64)
        self.n = len(group)
        """Calibration prompts."""
        self.counts = np.bincount(group, minlength=len(self.places))
        """Those of each group."""
        self._scores = [vectors[group == place, 0] for place in range(len(self.places))]
        self.why = baseline.why
        """Why the summaries are not compared; empty where they are."""
        self.summaries: SummaryTest | None = None
        """What the summaries of a window are compared with."""
        if self.width > 1:
            self.summaries = SummaryTest(vectors, group, config.points, config.seed)

    def ranked(self, rows: WindowRows) -> list[Group]:
        """Scores of both sides, for each group that has prompts on both."""
        pairs = [(clean, rows.summaries[rows.group == place, 0]) for place, clean in enumerate(self._scores)]
        return [(clean, seen) for clean, seen in pairs if clean.size and seen.size]

    def mixed(self, rows: WindowRows) -> tuple[Int[np.ndarray, " group"], Int[np.ndarray, " group"]]:
        """Prompts of each group on both sides; the last place is for groups that the calibration does not know."""
        most = len(self.places)
        seen = np.bincount(np.where(rows.group == STRANGE, most, rows.group), minlength=most + 1)
        return np.append(self.counts, 0), seen
