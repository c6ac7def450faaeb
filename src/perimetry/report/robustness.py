"""The page of a study of robustness: what was asked and what came out, the arms beside one another."""

from collections.abc import Sequence
from typing import NamedTuple

from perimetry.report.curves import figure
from perimetry.report.evaluation_figures import axis_span, axis_ticks
from perimetry.report.figures import Axis, Dot, dot_chart
from perimetry.report.making import making_section
from perimetry.report.markup import Html, Node, join, number, tag
from perimetry.report.measures import meanings, more
from perimetry.report.schema_robustness import RobustnessResultRow, RobustnessResults, TuningClaim
from perimetry.report.sections import Section
from perimetry.report.tables import grid
from perimetry.report.verdicts import Tone, Verdict, verdict_list

__all__ = [
    "SHOWN",
    "RobustnessChart",
    "arm_rows",
    "first_case",
    "robustness_charts",
    "robustness_sections",
    "robustness_verdicts",
]

SHOWN = ("recovered", "gap_closed", "clean_rise", "agreement", "loss", "accuracy", "refusal", "over_refusal")
"""The numbers in front, at the first perturbation where they have one."""
DRAWN = ("recovered", "gap_closed", "clean_rise", "loss")
TONES: dict[str, Tone] = {"holds": "good", "fails": "bad", "open": "open"}
BASE = "base"


def robustness_sections(results: RobustnessResults) -> list[Section]:
    """The sections of the page that have something to show."""
    found = [
        Section("verdict", "What was asked, and what came out", _verdict(results)),
        Section("arms", "The arms beside one another", _arms(results)),
        Section("unseen", "Every perturbation, those not tuned on too", _cases(results)),
        Section("shift", "Shift by the judging meters", _shift(results)),
        Section("names", "What the arms and judges are", _names(results)),
        Section("definitions", "What the numbers mean", meanings(results.metrics)),
        Section("making", "How this was made", making_section(results)),
    ]
    return [section for section in found if section.content]


def first_case(results: RobustnessResults) -> str:
    """The perturbation that stands in front."""
    return next((row.case for row in results.rows if row.metric == "loss"), "")


def _sentence(one: TuningClaim) -> str:
    way, arm = "above" if one.sign > 0 else "below", one.arm.replace("_", " ")
    did = {"holds": "holds", "fails": "the opposite holds", "open": "not decided"}[one.verdict]
    where = f" at {one.case}" if one.case else ""
    if one.against:
        than = f"that of {one.against.replace('_', ' ')}" + (f" plus {number(one.bound, 4)}" if one.bound else "")
    else:
        than = number(one.bound, 4)
    kind = "difference" if one.against else "measured"
    return (
        f"{one.metric.replace('_', ' ')} of {arm}{where} {way} {than} ({one.said}): {did}; {kind} {number(one.estimate, 4)} "
        f"({number(one.low, 4)} to {number(one.high, 4)}; {one.n} units, this way in {one.seeds_so} of {one.seeds} seeds)."
    )


def robustness_verdicts(results: RobustnessResults) -> list[Verdict]:
    """In a sentence each: what the interval says of a claim, and which arms diverged."""
    found = [Verdict(TONES[one.verdict], _sentence(one)) for one in results.claims]
    return found + [Verdict("bad", f"{one['arm']}, seed {one['seed']}: {one['why']}") for one in results.refused]


def _verdict(results: RobustnessResults) -> Html:
    note = (
        "Intervals hold two things: other texts (the same for both arms) and other seeds of matrices, order, corruptions and draws. A claim holds "
        "where the whole interval lies on its side."
    )
    return verdict_list(robustness_verdicts(results), note)


def arm_rows(results: RobustnessResults, metric: str, case: str, *, against: str = "") -> list[RobustnessResultRow]:
    """The rows of a number over all seeds, an arm each."""
    return [r for r in results.rows if (r.metric, r.case, r.seed, r.against) == (metric, case, None, against)]


def _case_of(results: RobustnessResults, metric: str) -> str:
    first = first_case(results)
    return first if any(r.metric == metric and r.case == first for r in results.rows) else ""


class RobustnessChart(NamedTuple):
    """One figure."""

    name: str
    """For a file."""
    metric: str
    """What it shows."""
    picture: Html
    """The SVG."""


def robustness_charts(results: RobustnessResults) -> list[RobustnessChart]:
    """A figure a number: an arm a line, with its interval."""
    found: list[RobustnessChart] = []
    for metric in DRAWN:
        rows = [r for r in arm_rows(results, metric, _case_of(results, metric)) if r.arm != BASE or metric == "loss"]
        if len(rows) < 2:
            continue
        low, high = axis_span(min(r.low for r in rows), max(r.high for r in rows))
        axis = Axis(f"{metric.replace('_', ' ')}, {results.metrics[metric].unit}", low, high, axis_ticks(low, high))
        dots = [Dot(r.arm.replace("_", " "), r.estimate, r.low, r.high, int(r.arm == BASE)) for r in rows]
        picture = dot_chart(dots, axis, title=metric.replace("_", " "))
        found.append(RobustnessChart(f"robustness-{metric.replace('_', '-')}", metric, picture))
    return found


def _arms(results: RobustnessResults) -> Html:
    said = "Lines: 95 % intervals of texts and seeds."
    pictures = [figure(c.picture, f"{results.metrics[c.metric].text}. {said}") for c in robustness_charts(results)]
    front = [row for metric in SHOWN for row in arm_rows(results, metric, _case_of(results, metric))]
    between = [
        row
        for row in results.rows
        if row.against and row.seed is None and row.metric in SHOWN and row.case == _case_of(results, row.metric)
    ]
    parts: list[Node] = [tag("div", *pictures, class_="figures")] if pictures else []
    parts += [_table(front, "Over all seeds"), _table(between, "Differences, over all seeds")]
    parts.append(more("Every number and seed", _table(results.rows, "All")))
    return join(parts)


def _cases(results: RobustnessResults) -> Html:
    rows = [r for r in results.rows if r.metric in ("recovered", "gap_closed") and r.seed is None and not r.against]
    return _table([r for r in rows if r.arm != BASE], "Over all seeds")


def _shift(results: RobustnessResults) -> Html:
    rows = [r for r in results.rows if r.metric in ("shift", "shift_clean") and r.seed is None and not r.against]
    return _table(rows, "Over all seeds; `own` is the meter in the loss") if rows else Html("")


def _names(results: RobustnessResults) -> Html:
    items: list[Node] = []
    for name, text in (*results.arms.items(), *results.judges.items()):
        items += [tag("dt", name.replace("_", " ")), tag("dd", text)]
    return tag("dl", *items)


COLUMNS = ("metric", "where", "arm", "minus", "seed", "estimate", "interval", "p", "units")
WORDS = 4
"""Columns that hold words."""


def _cells(row: RobustnessResultRow) -> tuple[Node, ...]:
    return (
        row.metric.replace("_", " "),
        row.case or "–",
        row.arm.replace("_", " "),
        row.against.replace("_", " ") or "–",
        "all" if row.seed is None else row.seed,
        number(row.estimate, 4),
        f"{number(row.low, 4)} to {number(row.high, 4)}",
        "–" if row.p_value is None else number(row.p_value, 4),
        row.n,
    )


def _table(rows: Sequence[RobustnessResultRow], caption: str) -> Html:
    return grid(caption, COLUMNS, WORDS, map(_cells, rows))
