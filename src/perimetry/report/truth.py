"""The page of a study of known features: what was asked and what came out, architectures and arms beside one another."""

from collections.abc import Sequence
from typing import NamedTuple

from perimetry.report.curves import figure
from perimetry.report.evaluation_figures import axis_span, axis_ticks
from perimetry.report.figures import Axis, Dot, dot_chart
from perimetry.report.making import making_section
from perimetry.report.markup import Html, Node, join, number, tag
from perimetry.report.measures import meanings, more
from perimetry.report.schema_truth import JudgedClaim, TruthResultRow, TruthResults
from perimetry.report.sections import Section
from perimetry.report.tables import grid
from perimetry.report.verdicts import Tone, Verdict, verdict_list

__all__ = ["SHOWN", "TruthChart", "truth_charts", "truth_rows", "truth_sections", "truth_verdicts"]

SHOWN = {
    "order": ("f1", "mcc", "uniqueness", "explained_variance", "l0"),
    "causal": ("absorption", "silence", "f1", "mcc", "explained_variance", "l0"),
}
"""Part -> the numbers in front."""
DRAWN = {"order": ("f1", "mcc"), "causal": ("absorption", "silence")}
TONES: dict[str, Tone] = {"holds": "good", "fails": "bad", "open": "open"}
NAMES = {
    "order": "Architectures on a world of known features",
    "causal": "Is it co-occurrence that makes dictionaries absorb?",
}


def truth_sections(results: TruthResults) -> list[Section]:
    """The sections of the page that have something to show."""
    parts = [part for part in SHOWN if any(row.part == part for row in results.rows)]
    found = [
        Section("verdict", "What was asked, and what came out", _verdict(results)),
        *(Section(part, NAMES[part], _part(results, part)) for part in parts),
        Section("definitions", "What the numbers mean", meanings(results.metrics)),
        Section("making", "How this was made", making_section(results)),
    ]
    return [section for section in found if section.content]


def _sentence(one: JudgedClaim) -> str:
    way = "above" if one.sign > 0 else "below"
    did = {"holds": "holds", "fails": "the opposite holds", "open": "not decided"}[one.verdict]
    return (
        f"{one.part}: {one.metric} of {one.arm.replace('_', ' ')} {way} that of {one.against.replace('_', ' ')} ({one.said}): {did}; "
        f"difference {number(one.estimate, 4)} ({number(one.low, 4)} to {number(one.high, 4)}; {one.n} units, this way in {one.seeds_so} of "
        f"{one.seeds} seeds)."
    )


def truth_verdicts(results: TruthResults) -> list[Verdict]:
    """In a sentence each: what the interval says of a claim."""
    return [Verdict(TONES[one.verdict], _sentence(one)) for one in results.claims]


def _verdict(results: TruthResults) -> Html:
    note = (
        "Intervals hold two things: other features (parents for absorption, blocks of tokens for variance and L0; the same for both arms) and other "
        "seeds. A claim holds where the whole interval lies on its side."
    )
    return verdict_list(truth_verdicts(results), note)


def truth_rows(results: TruthResults, part: str, metric: str, *, differences: bool) -> list[TruthResultRow]:
    """The rows of a number over all seeds."""
    return [
        row
        for row in results.rows
        if (row.part, row.metric, row.seed) == (part, metric, None) and bool(row.against) == differences
    ]


class TruthChart(NamedTuple):
    """One figure."""

    name: str
    """For a file."""
    label: str
    """What it shows."""
    picture: Html
    """The SVG."""


def truth_charts(results: TruthResults, part: str | None = None) -> list[TruthChart]:
    """A figure a number: an arm a line, with its interval; of all parts unless one is given."""
    found: list[TruthChart] = []
    for which, metrics in DRAWN.items():
        for metric in metrics if part in (None, which) else ():
            rows = truth_rows(results, which, metric, differences=False)
            if len(rows) < 2:
                continue
            low, high = axis_span(min(r.low for r in rows), max(r.high for r in rows))
            about = results.metrics[metric]
            dots = [Dot(r.arm.replace("_", " "), r.estimate, r.low, r.high, int(r.arm == "probe")) for r in rows]
            label = f"{which}: {metric}"
            axis = Axis(f"{metric}, {about.unit}", low, high, axis_ticks(low, high))
            found.append(TruthChart(f"truth-{which}-{metric}", label, dot_chart(dots, axis, title=label)))
    return found


def _part(results: TruthResults, part: str) -> Html:
    said = "Lines: 95 % intervals of units and seeds."
    pictures = [
        figure(chart.picture, f"{results.metrics[chart.name.split('-')[-1]].text} {said}")
        for chart in truth_charts(results, part)
    ]
    front = [row for metric in SHOWN[part] for row in truth_rows(results, part, metric, differences=False)]
    between = [row for metric in SHOWN[part] for row in truth_rows(results, part, metric, differences=True)]
    every = [row for row in results.rows if row.part == part]
    parts: list[Node] = [tag("div", *pictures, class_="figures")] if pictures else []
    parts += [_table(front, "Over all seeds"), _table(between, "Differences, over all seeds")]
    parts.append(more("Every number and seed", _table(every, "All")))
    return join(parts)


COLUMNS = ("metric", "arm", "minus", "seed", "estimate", "interval", "p", "units")
WORDS = 3
"""Columns that hold words."""


def _cells(row: TruthResultRow) -> tuple[Node, ...]:
    about = (row.metric.replace("_", " "), row.arm.replace("_", " "), row.against.replace("_", " ") or "–")
    box = (number(row.estimate, 4), f"{number(row.low, 4)} to {number(row.high, 4)}")
    return (
        *about,
        "all" if row.seed is None else row.seed,
        *box,
        "–" if row.p_value is None else number(row.p_value, 4),
        row.n,
    )


def _table(rows: Sequence[TruthResultRow], caption: str) -> Html:
    return grid(caption, COLUMNS, WORDS, map(_cells, rows))
