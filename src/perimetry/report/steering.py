"""The page of an evaluation of steering: verdicts, effects by multiplier, every number."""

from collections.abc import Sequence

from perimetry.report.curves import figure
from perimetry.report.evaluation_figures import axis_span, axis_ticks
from perimetry.report.figures import Axis, Series, line_chart
from perimetry.report.making import making_section
from perimetry.report.markup import Html, join, number, tag
from perimetry.report.measures import meanings, more
from perimetry.report.schema_steering import SteeringResults, SteeringRow, SteeringVerdict
from perimetry.report.sections import Section
from perimetry.report.tables import grid
from perimetry.report.verdicts import Tone, Verdict, verdict_list

__all__ = ["steering_sections", "steering_verdicts"]

SHOWN = ("positive", "negative", "contrast")


def steering_sections(results: SteeringResults) -> list[Section]:
    """The sections of the page."""
    note = "A vector steers where the likelihood of positive continuations rises and that of negative ones falls, both intervals apart from 0."
    found = [
        Section("verdict", "What the intervals say", verdict_list(steering_verdicts(results), note)),
        Section("effects", "Effects by multiplier", _effects(results)),
        Section("numbers", "Every number", _numbers(results)),
        Section("definitions", "What the numbers mean", meanings(results.metrics)),
        Section("making", "How this was made", making_section(results)),
    ]
    return [section for section in found if section.content]


def _row(results: SteeringResults, said: SteeringVerdict, metric: str) -> SteeringRow | None:
    wanted = (said.arm, said.multiplier, metric, 1.0)
    return next((r for r in results.rows if (r.arm, r.multiplier, r.metric, r.share) == wanted), None)


def steering_verdicts(results: SteeringResults) -> list[Verdict]:
    """A sentence an intervention."""
    found: list[Verdict] = []
    for said in results.verdicts:
        tone: Tone = "open" if said.arm != "vector" else "good" if said.verdict == "steers" else "bad"
        boxes = [(name, _row(results, said, name)) for name in SHOWN]
        values = ", ".join(
            f"{name} {number(r.estimate, 3)} ({number(r.low, 3)} to {number(r.high, 3)})" for name, r in boxes if r
        )
        found.append(Verdict(tone, f"{said.arm}, times {said.multiplier:g}: {said.verdict}; {values}."))
    return found


def _effects(results: SteeringResults) -> Html:
    rows = [r for r in results.rows if r.arm in ("vector", "zero") and r.share == 1 and r.metric in SHOWN]
    lines: list[Series] = []
    for slot, metric in enumerate(SHOWN):
        own = sorted((r for r in rows if r.metric == metric), key=lambda r: r.multiplier)
        columns = [(r.multiplier, r.estimate, r.low, r.high) for r in own]
        if len(columns) > 1:
            lines.append(Series(metric, *(tuple(c) for c in zip(*columns, strict=True)), slot=slot))
    if not lines:
        return Html("")
    low, high = axis_span(min(min(line.lows) for line in lines), max(max(line.highs) for line in lines))
    left, right = axis_span(lines[0].xs[0], lines[0].xs[-1])
    x, y = (
        Axis("multiplier", left, right, axis_ticks(left, right)),
        Axis("nats a token", low, high, axis_ticks(low, high)),
    )
    picture = line_chart(lines, x, y, title="Effects by multiplier", level=0.0)
    return tag(
        "div",
        figure(picture, "Rise against no intervention, on all prompts. Bands: 95 % bootstrap by prompt."),
        class_="figures",
    )


COLUMNS = ("arm", "number", "prompts", "times", "estimate", "interval", "n")
WORDS = 3
"""Columns that hold words."""


def _table(rows: Sequence[SteeringRow], caption: str) -> Html:
    cells = (
        (
            r.arm,
            r.metric.replace("_", " "),
            "all" if r.share == 1 else f"weakest {100 * r.share:g} %",
            f"{r.multiplier:g}",
            number(r.estimate, 4),
            f"{number(r.low, 4)} to {number(r.high, 4)}",
            r.n,
        )
        for r in rows
    )
    return grid(caption, COLUMNS, WORDS, cells)


def _numbers(results: SteeringResults) -> Html:
    front = [r for r in results.rows if not r.arm.startswith("random")]
    rest = [r for r in results.rows if r.arm.startswith("random")]
    return join([_table(front, "The vector, and none"), more("Vectors of random direction", _table(rest, "Random"))])
