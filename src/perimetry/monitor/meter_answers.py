"""From the readings of a meter to what the service says of a row. Runs in the worker only: it imports torch."""

import math
from collections.abc import Sequence
from typing import Any, Final

from perimetry.monitor.engine import ConceptScored, GroupFacts
from perimetry.monitor.wire import Answer, Asked
from perimetry.shift.base import Evidence
from perimetry.shift.evidence import Capture
from perimetry.shift.explain import explain_prompt
from perimetry.shift.meter import Meter
from perimetry.shift.multi import MultiMeter
from perimetry.shift.reading import Reading

__all__ = ["answers_of_batch", "calibration_spread", "group_facts"]

_POOLED: Final = "pooled"


def answers_of_batch(
    reader: Meter | MultiMeter,
    captured: Capture | tuple[Capture, ...],
    readings: Sequence[Reading],
    rows: Sequence[Asked],
    evidence: Sequence[Evidence],
    summaries: Sequence[tuple[float, ...]],
) -> list[Answer]:
    """Answers of the rows of one batch. Of a meter over several layers tokens and concepts are those of its loudest tap.

    `evidence`: of each tap. `summaries`: of each row.
    """
    sizes = _sizes(reader)
    found: list[Answer] = []
    for at, (reading, row, summary) in enumerate(zip(readings, rows, summaries, strict=True)):
        meter, capture, seen = _loudest(reader, captured, evidence, reading)
        concepts = _concepts(meter, capture, seen, at, row.concepts) if row.concepts else ()
        found.append(
            Answer(
                None,
                reading.score,
                reading.p_value,
                reading.group,
                reading.fallback,
                sizes[_POOLED if reading.fallback else reading.group],
                tuple(bool(c) for c in capture.counted[at].tolist()),
                tuple(token.score for token in reading.tokens) if row.tokens else (),
                concepts,
                summary,
            )
        )
    return found


def _loudest(
    reader: Meter | MultiMeter, captured: Any, evidence: Sequence[Evidence], reading: Reading
) -> tuple[Meter, Capture, Evidence]:
    """The meter that tokens and concepts are from, and what its tap gave."""
    if not isinstance(reader, MultiMeter):
        return reader, captured, evidence[0]
    assert reading.tap is not None
    at = list(reader.meters).index(reading.tap)
    return reader.meters[reading.tap], captured[at], evidence[at]


def _concepts(meter: Meter, capture: Capture, evidence: Evidence, at: int, most: int) -> tuple[ConceptScored, ...]:
    codes = evidence.codes.select(evidence.prompt == at)
    places = capture.counted[at].nonzero()[:, 0].tolist()
    explained = explain_prompt(codes, meter.normal.clean_rate, [""] * len(places), meter.normal.book, most)
    found: list[ConceptScored] = []
    for one in explained:
        count = int(((codes.indices == one.latent) & (codes.values != 0)).any(1).sum())
        place = int(places[one.position])
        found.append(ConceptScored(one.latent, None, one.surprise * count, count, place, one.contexts))
    return tuple(found)


def _sizes(reader: Meter | MultiMeter) -> dict[str, int]:
    """Calibration prompts of each group."""
    if isinstance(reader, MultiMeter):
        return reader.joint.sizes()
    return {group: values.numel() for group, values in reader.normal.calibration.scores[reader.main].items()}


def group_facts(reader: Meter | MultiMeter, alpha: float) -> list[GroupFacts]:
    """What is known of each group that is large enough, and of all prompts together, at a false-alarm rate.

    Of the joint p-value of several layers no threshold and no law of the realised rate is known: the interval is then all of [0, 1].
    """
    if isinstance(reader, MultiMeter):
        return [GroupFacts(name, n, 1 / (n + 1), None, 0.0, 1.0) for name, n in reader.joint.sizes().items()]
    calibration, sides = reader.normal.calibration, 2 if reader.main in reader.normal.calibration.two_sided else 1
    return [
        GroupFacts(
            t.group,
            t.alarms.n_calibration,
            sides / (t.alarms.n_calibration + 1),
            t.value if math.isfinite(t.value) else None,
            t.alarms.low,
            t.alarms.high,
        )
        for t in calibration.thresholds(reader.main, alpha)
    ]


def calibration_spread(reader: Meter | MultiMeter) -> float:
    """Standard deviation of the scores of all calibration prompts."""
    if isinstance(reader, MultiMeter):
        # Each prompt held against all, itself included: near enough to what its score would have been.
        scores = -reader.joint.p_values(reader.joint.scores, reader.joint.lengths).least.log()
    else:
        scores = reader.normal.calibration.scores[reader.main][_POOLED].double()
    return float(scores.std())
