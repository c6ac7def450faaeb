"""The page of a lab: what was to come out and what came out, the figures, every number."""

import math
from collections.abc import Sequence

from perimetry.report.curves import figure
from perimetry.report.evaluation_figures import axis_span, axis_ticks
from perimetry.report.figures import Axis, Series, line_chart
from perimetry.report.making import making_section
from perimetry.report.markup import Html, join, number, tag
from perimetry.report.measures import more
from perimetry.report.schema_lab import LabAsked, LabClaim, LabLine, LabPanel, LabResultRow, LabResults
from perimetry.report.sections import Section
from perimetry.report.tables import grid
from perimetry.report.verdicts import Tone, Verdict, verdict_list

__all__ = ["lab_chart", "lab_sections", "lab_verdicts"]

POINTS = 60
"""Most points of a drawn line: each has a marker and a tooltip."""


def lab_sections(results: LabResults) -> list[Section]:
    """The sections of the page that have something to show."""
    note = "Said before it was run. Means over seeds with Student's 95 % interval. A control is a bound on an effect that must be absent."
    source = results.source
    found = [
        Section("verdict", "What was to come out, and what came out", verdict_list(lab_verdicts(results), note)),
        Section("figures", "In pictures", _figures(results)),
        Section("meter", "What the shift meter sees of it", join(_asked(one) for one in results.asked)),
        Section("numbers", "Every number", _numbers(results)),
        Section("source", "What was rebuilt", tag("p", f"{source.authors}: {source.title}. {source.where}.")),
        Section("making", "How this was made", making_section(results)),
    ]
    return [section for section in found if section.content]


def _bound(one: LabClaim) -> str:
    if one.least is not None and one.most is not None:
        return f"{number(one.least, 4)} to {number(one.most, 4)}"
    return f"at least {number(one.least, 4)}" if one.least is not None else f"at most {number(one.most or 0.0, 4)}"


def lab_verdicts(results: LabResults) -> list[Verdict]:
    """A sentence each: the expectation, its bound, what was measured, in how many seeds."""
    found: list[Verdict] = []
    for one in results.claims:
        tone: Tone = "good" if one.verdict == "holds" else "bad" if one.decides else "open"
        where = f"{one.arm}, {one.metric}" + (f", {one.case}" if one.case else "")
        needed = "every seed" if one.needed >= 1 else f"{100 * one.needed:g} % of seeds"
        text = (
            f"{'Control: ' if one.control else ''}{one.said} ({where}: {_bound(one)}, in {needed}): {_measured(one)}, so in "
            f"{one.so} of {one.n} seeds."
        )
        found.append(Verdict(tone, text))
    return found


def _measured(one: LabClaim) -> str:
    if one.estimate is None or one.low is None or one.high is None:
        return "no seed gave the number"
    return f"measured {number(one.estimate, 4)} ({number(one.low, 4)} to {number(one.high, 4)})"


def lab_chart(panel: LabPanel) -> Html:
    """The picture of a figure."""
    lines = [_series(line, panel, slot) for slot, line in enumerate(panel.lines)]
    x = _axis(panel.x, [v for line in lines for v in line.xs], log=panel.log_x)
    heights = [v for line in lines for v in (*line.ys, *line.lows, *line.highs)]
    level = None if panel.level is None else _shown(panel.level, log=panel.log_y)
    y = _axis(panel.y, heights + ([] if level is None else [level]), log=panel.log_y)
    return line_chart(lines, x, y, title=panel.title, level=level)


def _shown(value: float, *, log: bool) -> float:
    return math.log10(max(value, 1e-300)) if log else value


def _series(line: LabLine, panel: LabPanel, slot: int) -> Series:
    kept = range(len(line.xs))
    if len(line.xs) > POINTS:
        kept = sorted({round(i * (len(line.xs) - 1) / (POINTS - 1)) for i in range(POINTS)})

    def column(values: Sequence[float], *, log: bool) -> tuple[float, ...]:
        return tuple(_shown(values[i], log=log) for i in kept) if values else ()

    return Series(
        line.name,
        column(line.xs, log=panel.log_x),
        column(line.ys, log=panel.log_y),
        column(line.lows, log=panel.log_y),
        column(line.highs, log=panel.log_y),
        slot,
    )


def _axis(label: str, values: Sequence[float], *, log: bool) -> Axis:
    low, high = axis_span(min(values), max(values))
    if not log:
        return Axis(label, low, high, axis_ticks(low, high))
    ticks = tuple((float(e), f"{10.0**e:g}") for e in range(math.ceil(low), math.floor(high) + 1))
    return Axis(f"{label} (logarithmic)", low, high, ticks)


def _figures(results: LabResults) -> Html:
    pictures = [figure(lab_chart(panel), panel.caption or panel.title) for panel in results.panels if panel.lines]
    return tag("div", *pictures, class_="figures") if pictures else Html("")


def _asked(one: LabAsked) -> Html:
    """A table of scores; a cell is the mean over seeds with its interval."""
    cells = (
        (
            row.score,
            "concepts" if row.concepts else "no concept",
            *("–" if c is None else f"{number(c[0], 3)} ({number(c[1], 3)} to {number(c[2], 3)})" for c in row.cells),
        )
        for row in one.scores
    )
    return grid(f"{one.question} {one.unit}", ("score", "reads", *one.columns), 2, cells)


COLUMNS = ("arm", "number", "of", "seed", "estimate", "interval", "n")
WORDS = 3
"""Columns that hold words."""


def _table(rows: Sequence[LabResultRow], caption: str) -> Html:
    cells = (
        (
            row.arm,
            row.metric,
            row.case or "–",
            "all" if row.seed is None else row.seed,
            number(row.estimate, 4),
            f"{number(row.low, 4)} to {number(row.high, 4)}",
            row.n,
        )
        for row in rows
    )
    return grid(caption, COLUMNS, WORDS, cells)


def _numbers(results: LabResults) -> Html:
    whole = [row for row in results.rows if row.seed is None]
    return join([_table(whole, "Over all seeds"), more("Every seed", _table(results.rows, "All"))])
