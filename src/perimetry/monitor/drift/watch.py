"""What is known of the traffic: the window that fills, the sums, what the last window said. Plain computing, without threads and disks."""

import base64
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, final

import numpy as np

from perimetry.monitor.drift.concepts import ConceptCounts
from perimetry.monitor.drift.cusum import cusum_step
from perimetry.monitor.drift.drift_config import DriftConfig
from perimetry.monitor.drift.reference import STRANGE, Reference, WindowRows
from perimetry.monitor.drift.windows import Judgement, judge_window

__all__ = ["Seen", "Watch", "WindowDone"]

_VERSION: Final = 1


class Seen(NamedTuple):
    """One prompt, as far as drift is concerned."""

    artifact: str
    """What scored it."""
    group: str
    """Its group."""
    p_value: float
    """Its p-value, in (0, 1]."""
    score: float
    """Its score."""
    summary: tuple[float, ...] | None
    """Its summary, if it has one."""
    n_tokens: int
    """Its tokens."""
    concepts: tuple[tuple[int, int], ...]
    """Concepts that it is said of on how many tokens they fire."""


class WindowDone(NamedTuple):
    """A window that is full."""

    number: int
    """0 for the first."""
    judgements: list[Judgement]
    """What the tests said."""
    alarm: bool
    """Whether it is the second in a row, or a later one, in which something was found."""


@final
class Watch:
    """The state of one artifact's traffic."""

    def __init__(self, config: DriftConfig, reference: Reference, artifact: str, now: str) -> None:
        """`now`: when it began, as ISO 8601."""
        self.config, self.reference, self.artifact = config, reference, artifact
        self.as_of = now
        """When the last prompt or window came, as ISO 8601."""
        self.prompts = 0
        """Prompts that were taken."""
        self.unusable = 0
        """Those of them that carried no summary that fits, and so are in no window."""
        self.cusum = 0.0
        self.crossed = False
        """Whether the sum has reached its threshold since it was last acknowledged."""
        self.windows = self.watched = self.streak = 0
        """Windows that were judged, those in which something was found, and how many of these are the last ones in a row."""
        self.position = -1
        """Number of the last event that was taken from a shared database; -1 where none was looked for yet."""
        self.acknowledged = ""
        """The last acknowledgement that was heeded."""
        self._tests: list[dict[str, Any]] = []
        self._rising: list[dict[str, Any]] = []
        self._group: list[int] = []
        self._summaries: list[tuple[float, ...]] = []
        self._concepts = ConceptCounts()

    def take(self, one: Seen, now: str) -> WindowDone | None:
        """Take a prompt; where it fills a window, that is judged."""
        self.prompts += 1
        self.as_of = now
        self.cusum = cusum_step(self.cusum, one.p_value)
        self.crossed = self.crossed or self.cusum >= self.config.cusum
        self._concepts.add(one.n_tokens, one.concepts)
        summary = one.summary if one.summary is not None or self.reference.width > 1 else (one.score,)
        if summary is None or len(summary) != self.reference.width or not np.isfinite(summary).all():
            self.unusable += 1
            return None
        self._group.append(self.reference.places.get(one.group, STRANGE))
        self._summaries.append(summary)
        return self._judge() if len(self._group) >= self.config.window else None

    def _judge(self) -> WindowDone:
        rows = WindowRows(np.array(self._group), np.array(self._summaries, dtype=np.float32).astype(np.float64))
        concepts, number = self._concepts, self.windows
        self._group, self._summaries, self._concepts = [], [], ConceptCounts()
        # Counted before it is judged: a window that cannot be judged is not tried again.
        self.windows += 1
        found = judge_window(self.reference, rows, number, self.config)
        watched = any(one.alarms for one in found)
        self.watched += watched
        self.streak = self.streak + 1 if watched else 0
        self._tests = [one.said() for one in found]
        self._rising = concepts.rising(self.reference.rates) if concepts.tokens else []
        return WindowDone(number, found, self.streak > 1)

    def acknowledge(self, name: str = "") -> None:
        """Somebody has seen it: sums begin anew, and windows in a row too."""
        self.cusum, self.crossed, self.streak, self.acknowledged = 0.0, False, 0, name

    @property
    def state(self) -> str:
        """`alarm`, `watch`, `ok`, or `warming` before the first window."""
        if self.crossed or self.streak > 1:
            return "alarm"
        return "watch" if self.streak else "ok" if self.windows else "warming"

    def said(self) -> dict[str, Any]:
        """In the words of the contract."""
        tests = 1 if self.reference.summaries is None else 2
        return {
            "as_of": self.as_of,
            "state": self.state,
            "window": self.config.window,
            "reference_n": self.reference.n,
            "tests": list(self._tests),
            "cusum": {"value": self.cusum, "threshold": self.config.cusum, "alarm": self.crossed},
            "budget": {
                "windows_per_false_alarm": 1 / (tests * self.config.level),
                "observed": self.watched / self.windows if self.windows else 0.0,
            },
            "rising_concepts": list(self._rising),
            "gates": {name: getattr(self.config, name) for name in ("auroc_gap", "wasserstein", "witness", "mix")},
        }

    def dump(self) -> dict[str, Any]:
        """Everything but what the calibration says, as JSON."""
        flat = np.array(self._summaries, dtype="<f4").tobytes()
        plain = ("artifact", "as_of", "prompts", "unusable", "cusum", "crossed", "windows", "watched", "streak")
        return {name: getattr(self, name) for name in plain} | {
            "version": _VERSION,
            "position": self.position,
            "acknowledged": self.acknowledged,
            "tests": self._tests,
            "rising": self._rising,
            "group": list(self._group),
            "summaries": base64.b64encode(flat).decode(),
            "concepts": self._concepts.dump(),
        }

    def restore(self, found: Mapping[str, Any]) -> bool:
        """Take over what `dump` gave; False, and nothing else, where that was of another artifact.

        A window that was filled with summaries of another width begins anew. Errors: `ValueError` for what is no state, with nothing changed.
        """
        try:
            if found["version"] != _VERSION:
                raise ValueError(f"a state of version {found['version']}; {_VERSION} was wanted")
            if found["artifact"] != self.artifact:
                return False
            numbers = [int(found[name]) for name in ("prompts", "unusable", "windows", "watched", "streak")]
            position = int(found["position"])
            cusum, crossed = float(found["cusum"]), bool(found["crossed"])
            group, concepts = [int(g) for g in found["group"]], ConceptCounts.load(found["concepts"])
            flat = np.frombuffer(base64.b64decode(found["summaries"], validate=True), "<f4")
            tests, rising = [dict(t) for t in found["tests"]], [dict(r) for r in found["rising"]]
            as_of, acknowledged = str(found["as_of"]), str(found["acknowledged"])
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"this is no state of drift ({type(error).__name__})") from error
        well = np.isfinite(flat).all() and 0 <= cusum < np.inf and min(numbers) >= 0 and position >= -1
        fits = flat.size == len(group) * self.reference.width and len(group) < self.config.window
        if not well or not all(STRANGE <= g < len(self.reference.places) for g in group):
            raise ValueError("a state of drift holds numbers that it cannot have")
        self.prompts, self.unusable, self.windows, self.watched, self.streak = numbers
        self.position = position
        self.cusum, self.crossed, self.as_of, self.acknowledged = cusum, crossed, as_of, acknowledged
        self._tests, self._rising = tests, rising
        self._group, self._summaries, self._concepts = [], [], ConceptCounts()
        if fits:
            self._group, self._concepts = group, concepts
            self._summaries = [tuple(row) for row in flat.reshape(-1, self.reference.width).tolist()]
        return True
