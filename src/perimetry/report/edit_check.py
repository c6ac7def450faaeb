"""The page of a check of edits: what each ring shows, changes beside those of drawn updates, every number."""

from collections.abc import Sequence

from perimetry.report.curves import figure
from perimetry.report.evaluation_figures import axis_span, axis_ticks
from perimetry.report.figures import Axis, Dot, dot_chart
from perimetry.report.making import making_section
from perimetry.report.markup import Html, join, number, tag
from perimetry.report.measures import meanings, more
from perimetry.report.schema_edit_check import CheckedEdit, EditCheckResults, EditRow
from perimetry.report.sections import Section
from perimetry.report.tables import grid
from perimetry.report.verdicts import Verdict, verdict_list

__all__ = ["edit_check_sections", "edit_check_verdicts", "edit_row"]

DRAWN = ("ring_r", "ring_r_scaled", "nll", "siblings", "concepts", "active")
"""Numbers that have a figure."""
MOST_DOTS = 30


def edit_check_sections(results: EditCheckResults) -> list[Section]:
    """The sections of the page that have something to show."""
    note = (
        "No probe suffices alone and there is no single verdict: an edit may leave rings as they were and hurt facts beside it, or the "
        "other way round. A norm blow-up is distances of another size, a loss of structure distances of another shape."
    )
    found = [
        Section("verdict", "What each edit shows", verdict_list(edit_check_verdicts(results), note)),
        Section("figures", "Beside drawn updates of the same norm", _figures(results)),
        Section("rings", "Rings as probes of this model", _rings(results)),
        Section("numbers", "Every number", _numbers(results)),
        Section("definitions", "What the numbers mean", meanings(results.metrics)),
        Section("making", "How this was made", making_section(results)),
    ]
    return [section for section in found if section.content]


def edit_row(results: EditCheckResults, edit: str, metric: str, probe: str = "", arm: str = "edit") -> EditRow | None:
    """A number of an edit; without `probe` that of the first one."""
    return next(
        (
            r
            for r in results.rows
            if (r.edit, r.metric, r.arm) == (edit, metric, arm) and (not probe or r.probe == probe)
        ),
        None,
    )


def _beside(results: EditCheckResults, edit: str, metric: str, probe: str = "") -> str:
    own, drawn = (edit_row(results, edit, metric, probe, arm) for arm in ("edit", "drawn"))
    if own is None:
        return ""
    return number(own.estimate, 3) + (f" (drawn {number(drawn.estimate, 3)})" if drawn is not None else "")


def edit_check_verdicts(results: EditCheckResults) -> list[Verdict]:
    """A sentence an edit: whether it took, what rings, text and facts show, each beside drawn updates."""
    found: list[Verdict] = []
    for one in results.edits:
        flagged = [r for r in one.rings if r.flag != "none"]
        parts = [f"p(new) {number(one.p_target, 3)}", f"size {number(one.size, 3)} of the weights"]
        parts += [f"R {r.ring} {_beside(results, one.edit, 'ring_r', r.ring)}" for r in one.rings]
        parts += [
            f"{name} {_beside(results, one.edit, metric)}"
            for metric, name in (("nll", "NLL"), ("siblings", "facts beside it"))
        ]
        parts += [f"{r.ring}: {'norm blow-up and loss of structure' if r.flag == 'both' else r.flag}" for r in flagged]
        found.append(Verdict("bad" if flagged else "open", f"{one.edit}: {'; '.join(parts)}."))
    return found


def _figures(results: EditCheckResults) -> Html:
    pictures: list[Html] = []
    for metric in DRAWN:
        for probe in dict.fromkeys(r.probe for r in results.rows if r.metric == metric):
            dots = _dots(results, metric, probe)
            low, high = axis_span(min(d.low for d in dots), max(d.high for d in dots))
            about = results.metrics[metric]
            title = f"{metric.replace('_', ' ')}: {probe}"
            picture = dot_chart(dots, Axis(f"change, {about.unit}", low, high, axis_ticks(low, high)), title=title)
            pictures.append(
                figure(
                    picture, f"{about.text}. Drawn: mean over updates of random direction with the norm of the edit."
                )
            )
    return tag("div", *pictures, class_="figures") if pictures else Html("")


def _dots(results: EditCheckResults, metric: str, probe: str) -> list[Dot]:
    rows = [r for r in results.rows if r.metric == metric and r.probe == probe]
    pooled = [r for r in rows if r.edit == "all"]
    shown = pooled if len(rows) > MOST_DOTS and pooled else rows
    return [
        Dot(
            f"{_name(results, r)}{', drawn' if r.arm == 'drawn' else ''}",
            r.estimate,
            r.low,
            r.high,
            int(r.arm == "drawn"),
        )
        for r in shown[:MOST_DOTS]
    ]


def _name(results: EditCheckResults, row: EditRow) -> str:
    if row.edit == "all":
        return f"all of {row.family}"
    same: Sequence[CheckedEdit] = [e for e in results.edits if e.family == row.family]
    own = next((i for i, e in enumerate(same, 1) if e.edit == row.edit), 1)
    return row.family if len(same) == 1 else f"{row.family} {own}"


def _rings(results: EditCheckResults) -> Html:
    cells = (
        (
            r.ring,
            "refused" if r.refusal else f"after blocks {', '.join(map(str, r.layers))}",
            ", ".join(number(o, 2) for o in r.orders),
            r.words,
        )
        for r in results.rings
    )
    refusals = [tag("p", f"{r.ring}: {r.refusal}.", class_="muted") for r in results.rings if r.refusal]
    return join([grid("Rings", ("ring", "read", "order at each layer", "words"), 2, cells), *refusals])


COLUMNS = ("edit", "arm", "number", "probe", "before", "after", "change", "interval", "n")
WORDS = 4
"""Columns that hold words."""


def _table(rows: Sequence[EditRow], caption: str) -> Html:
    cells = (
        (
            r.edit if r.edit != "all" else f"all of {r.family}",
            r.arm,
            r.metric.replace("_", " "),
            r.probe,
            number(r.before, 4),
            number(r.after, 4),
            number(r.estimate, 4),
            f"{number(r.low, 4)} to {number(r.high, 4)}",
            r.n,
        )
        for r in rows
    )
    return grid(caption, COLUMNS, WORDS, cells)


def _numbers(results: EditCheckResults) -> Html:
    front = [r for r in results.rows if r.arm == "edit"]
    drawn = [r for r in results.rows if r.arm == "drawn"]
    return join([_table(front, "Edits"), more("Drawn updates", _table(drawn, "Drawn updates"))])
