"""P-values of responses: the largest running score of a response, held against that of clean responses over the same horizon.

A response grows while it is watched, and whoever looks at every token looks often. The statistic is therefore the maximum
over a fixed number of tokens: on the way it can only rise, so that a response is flagged at any time with the chosen rate
at most, provided that it is exchangeable with the clean ones: same model, prompts of the same kind, same sampling.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import torch

from perimetry import __version__
from perimetry.artifact import read_artifact, write_artifact
from perimetry.axes import PerPrompt
from perimetry.errors import CorruptArtifact, Incompatible, TooFewSamples, UsageError
from perimetry.shift.conformal import conformal_p
from perimetry.shift.watch_rows import ResponseReading, WatchedRow, peak_of, running_means

__all__ = ["RESPONSES_KIND", "ResponseCalibration", "ResponseFacts", "response_peak"]

RESPONSES_KIND: Final = "response-calibration"


class ResponseFacts(NamedTuple):
    """What must be the same of the responses that are judged."""

    meter: str
    """Identity of the meter that scored them."""
    detector: str
    """Its main score, whose token scores count."""
    sampling: str
    """How tokens were chosen, as JSON."""
    horizon: int
    """Response tokens that are judged."""

    def require(self, other: "ResponseFacts", what: str) -> None:
        """Refuse `other`, the facts of `what`, where they differ. Errors: `Incompatible`."""
        mine, theirs = self._asdict(), other._asdict()
        different = [f"{k} is {theirs[k]!r}, wanted {mine[k]!r}" for k in mine if mine[k] != theirs[k]]
        if different:
            raise Incompatible(
                f"{what} cannot be held against the clean responses: {'; '.join(different)}; calibrate responses as they are "
                "generated"
            )


def response_peak(row: WatchedRow, horizon: int) -> float | None:
    """The largest running score of the first `horizon` response tokens; minus infinity where no token counts, and None where
    fewer than eight are scored and more may come."""
    mine = row.of_response()
    closed = row.ended or len(mine) >= horizon
    counted = torch.tensor([s for s in mine[:horizon] if s is not None], dtype=torch.float64)
    running = running_means(counted, closed=closed)
    return peak_of(tuple(running.tolist())) if closed or running.numel() else None


@final
class ResponseCalibration:
    """The largest running scores of clean responses; fitted, saved beside the meter, and handed to `watch`."""

    def __init__(self, peaks: PerPrompt, silent: int, facts: ResponseFacts) -> None:
        """`peaks` sorted ascending; `silent`: responses that ended before a token counted, which lie below all others."""
        self.peaks = peaks
        self.silent = silent
        self.facts = facts

    @property
    def n(self) -> int:
        """Clean responses."""
        return self.peaks.numel() + self.silent

    @classmethod
    def fit(cls, rows: Sequence[WatchedRow], horizon: int) -> "ResponseCalibration":
        """Calibrate on watched responses to clean prompts that the meter was not fitted on, one response a prompt.

        Each must have ended by itself or reach over `horizon` scored tokens (generated - 1), or its maximum would be one over
        less. Errors: `TooFewSamples` for fewer than two or for a response that was cut short, `Incompatible` for rows of different
        meters or sampling, `UsageError` for a horizon below 1 or an unsaved meter.
        """
        if horizon < 1:
            raise UsageError(f"a horizon of {horizon} tokens judges nothing; wanted at least 1, such as 128")
        if len(rows) < 2:
            raise TooFewSamples(
                f"a response calibration needs clean responses, at least 2, got {len(rows)}; generate more"
            )
        first = _facts(rows[0], horizon)
        if first.meter.partition("+")[0] == "unsaved":
            raise UsageError("the meter has no identity before it is saved; save it, and watch with the saved one")
        for index, row in enumerate(rows):
            _require_whole(index, row, horizon)
            first.require(_facts(row, horizon), f"response {index}")
        peaks = [peak for row in rows if (peak := response_peak(row, horizon)) is not None]
        loud = torch.tensor([peak for peak in peaks if peak > -math.inf], dtype=torch.float64)
        return cls(loud.sort().values, len(peaks) - loud.numel(), first)

    def p_value(self, peak: float) -> float:
        """(1 + clean responses whose peak is at least as high) / (n + 1).

        >>> facts = ResponseFacts("meter", "surprise", "{}", 8)
        >>> calibration = ResponseCalibration(torch.tensor([1.0, 2.0]), 1, facts)
        >>> [calibration.p_value(x) for x in (3.0, 1.5, -math.inf)]
        [0.25, 0.5, 1.0]
        """
        silent = torch.full((self.silent,), -math.inf, dtype=self.peaks.dtype)
        scores = torch.tensor([peak], dtype=self.peaks.dtype)
        return float(conformal_p(torch.cat([silent, self.peaks]), scores)[0])

    def read(self, row: WatchedRow) -> ResponseReading | None:
        """The response of a row, judged at the rate of its prompt; None before eight of its tokens are scored."""
        peak = response_peak(row, self.facts.horizon)
        if peak is None:
            return None
        p = self.p_value(peak)
        return ResponseReading(None if math.isinf(peak) else peak, p, p <= row.prompt.alpha, self.facts.horizon)

    def require(self, meter: str, detector: str, sampling: str) -> None:
        """Refuse responses of another meter or of other sampling. Errors: `Incompatible`."""
        facts = ResponseFacts(meter, detector, sampling, self.facts.horizon)
        self.facts.require(facts, "this generation")

    def save(self, path: Path) -> str:
        """Write it to a folder, atomically, such as `METER-responses` beside `METER`; returns the digest."""
        about = {"perimetry": __version__, "silent": self.silent} | self.facts._asdict()
        return write_artifact(path, RESPONSES_KIND, {"responses": {"peaks": self.peaks}}, {"about": about})

    @classmethod
    def load(cls, path: Path) -> "ResponseCalibration":
        """Read what `save` wrote. Errors: `MissingFile`, `CorruptArtifact`, `Incompatible`, `NonFinite`."""
        found = read_artifact(path, RESPONSES_KIND)
        about: Any = found.documents.get("about")
        try:
            peaks, silent = found.tensors["responses"]["peaks"], int(about["silent"])
            facts = ResponseFacts(
                str(about["meter"]), str(about["detector"]), str(about["sampling"]), int(about["horizon"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptArtifact(f"{path} is no response calibration ({error!r}); make it again") from error
        if peaks.ndim != 1 or not peaks.is_floating_point() or bool((peaks.diff() < 0).any()) or silent < 0:
            raise CorruptArtifact(f"the peaks in {path} are not sorted numbers; make it again")
        if facts.horizon < 1 or peaks.numel() + silent < 2:
            raise CorruptArtifact(f"{path} holds too few responses or no horizon; make it again")
        return cls(peaks, silent, facts)


def _facts(row: WatchedRow, horizon: int) -> ResponseFacts:
    return ResponseFacts(row.prompt.meter, row.prompt.detector, row.sampling, horizon)


def _require_whole(index: int, row: WatchedRow, horizon: int) -> None:
    scored = len(row.of_response())
    if row.stopped or not (row.ended or scored >= horizon):
        raise TooFewSamples(
            f"response {index} was cut after {scored} scored tokens, before the horizon of {horizon}; generate at least "
            f"{horizon + 1} tokens with on_flag='record', or take a shorter horizon"
        )
