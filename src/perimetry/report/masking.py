"""The page of a masking study: what was published and what was seen, every arm beside the plain one, over counts and seeds."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from perimetry.report.curves import figure
from perimetry.report.evaluation_figures import axis_span, axis_ticks
from perimetry.report.figures import Axis, Series, line_chart
from perimetry.report.making import making_section
from perimetry.report.markup import Html, Node, join, number, tag
from perimetry.report.measures import more
from perimetry.report.schema_masking import MaskingResultRow, MaskingResults, Sign
from perimetry.report.sections import Section
from perimetry.report.tables import framed
from perimetry.report.verdicts import Tone, Verdict, verdict_list

__all__ = ["SHOWN", "Chart", "masking_charts", "masking_sections", "masking_verdicts", "over_seeds"]

SHOWN = (
    ("absorption", "full_absorption"),
    ("absorption", "absorption_fraction"),
    ("absorption", "main_f1"),
    ("probing", "auroc"),
    ("fidelity", "explained_variance"),
    ("fidelity", "l0"),
    ("ood_probing", "auroc_ood"),
    ("ood_probing", "gap"),
)
"""What stands in front."""
TONES: dict[str, Tone] = {"seen": "good", "opposite": "bad", "open": "open"}


def masking_sections(results: MaskingResults) -> list[Section]:
    """The sections of the page that have something to show."""
    found = [
        Section("verdict", "What was published, and what was seen", _verdict(results)),
        Section("figures", "Arms by count", _figures(results)),
        Section("differences", "Arms against the plain one", _differences(results)),
        Section("numbers", "Every arm", _numbers(results)),
        Section("refused", "What could not be judged", _refused(results)),
        Section("saes", "The dictionaries", _saes(results)),
        Section("making", "How this was made", making_section(results)),
    ]
    return [section for section in found if section.content]


def _sentence(one: Sign) -> str:
    at = (f" on {one.case} shifts" if one.case else "") + (f" at k = {one.k}" if one.k else "")
    did = {
        "seen": "the published sign was seen",
        "opposite": "the opposite of the published sign was seen",
        "open": "neither sign was seen",
    }[one.verdict]
    return (
        f"{one.evaluation} {one.metric.replace('_', ' ')}{at}, L0 {one.l0_target}: {did}; masked minus plain {number(one.value, 4)} "
        f"({number(one.low, 4)} to {number(one.high, 4)}; {one.n} units, above 0 in {one.seeds_above} of {one.seeds} seeds). "
        f"Published: {one.said}."
    )


def masking_verdicts(results: MaskingResults) -> list[Verdict]:
    """In a sentence each: was the published sign seen, at each count."""
    return [Verdict(TONES[one.verdict], _sentence(one)) for one in results.signs]


def _verdict(results: MaskingResults) -> Html:
    note = (
        "Intervals hold two things: other units of each evaluation (documents, letters, labelled sets, the same for both arms) and other seeds of "
        "the dictionaries. A sign counts as seen where the whole interval lies on its side."
    )
    return verdict_list(masking_verdicts(results), note)


def over_seeds(results: MaskingResults, evaluation: str, metric: str, *, differences: bool) -> list[MaskingResultRow]:
    """The rows of a number over all seeds and units."""
    return [
        row
        for row in results.rows
        if (row.evaluation, row.metric, row.case, row.seed, row.measured) == (evaluation, metric, "", None, "sae")
        and bool(row.against) == differences
    ]


class Chart(NamedTuple):
    """One figure."""

    name: str
    """For a file."""
    label: str
    """What it shows."""
    picture: Html
    """The SVG."""


def masking_charts(results: MaskingResults) -> list[Chart]:
    """A figure a number in front and count of probe latents: values by count, a line an arm."""
    found: list[Chart] = []
    for evaluation, metric in SHOWN:
        rows = over_seeds(results, evaluation, metric, differences=False)
        for k in sorted({row.k for row in rows}):
            own = [row for row in rows if row.k == k]
            counts = sorted({row.l0_target for row in own})
            if len(counts) > 1:
                label = f"{evaluation}: {metric.replace('_', ' ')}" + (f" at k = {k}" if k else "")
                name = f"masking-{evaluation}-{metric}" + (f"-{k}" if k else "")
                found.append(Chart(name.replace("_", "-"), label, _chart(own, counts, label)))
    return found


def _figures(results: MaskingResults) -> Html:
    said = "Mean of the seeds; bands: 95 % intervals of units, which arms share, and seeds."
    pictures = [figure(chart.picture, f"{chart.label}. {said}") for chart in masking_charts(results)]
    return tag("div", *pictures, class_="figures") if pictures else join([])


def _chart(rows: Sequence[MaskingResultRow], counts: Sequence[int], label: str) -> Html:
    place = {count: float(i) for i, count in enumerate(counts)}
    lines: list[Series] = []
    for slot, arm in enumerate(dict.fromkeys(row.arm for row in rows)):
        own = sorted((row for row in rows if row.arm == arm), key=lambda row: row.l0_target)
        columns = [(place[r.l0_target], r.value, r.low, r.high) for r in own]
        lines.append(Series(arm, *(tuple(column) for column in zip(*columns, strict=True)), slot=slot))
    low, high = axis_span(min(r.low for r in rows), max(r.high for r in rows))
    x = Axis("target count (L0)", -0.15, len(counts) - 0.85, tuple((place[c], str(c)) for c in counts))
    return line_chart(lines, x, Axis(rows[0].unit, low, high, axis_ticks(low, high)), title=label)


def _differences(results: MaskingResults) -> Html:
    parts: list[Node] = []
    for evaluation, metric in SHOWN:
        rows = over_seeds(results, evaluation, metric, differences=True)
        if rows:
            parts.append(_table(rows, f"{evaluation}: {metric.replace('_', ' ')}", differences=True))
    rest = [r for r in results.rows if r.against and (r.seed is not None or r.case) and r.measured == "sae"]
    if rest:
        parts.append(more("By seed and by kind of shift", _table(rest, "Every difference", differences=True)))
    return join(parts)


def _numbers(results: MaskingResults) -> Html:
    rows = [row for row in results.rows if not row.against]
    whole = [row for row in rows if row.seed is None and not row.case]
    return join(
        [
            _table(whole, "Over all seeds", differences=False),
            more("By seed and by kind of shift", _table(rows, "All", differences=False)),
        ]
    )


class _Column(NamedTuple):
    name: str
    text: Callable[[MaskingResultRow], Node]


COLUMNS = (
    _Column("arm", lambda row: row.arm),
    _Column("minus", lambda row: row.against or "–"),
    _Column("evaluation", lambda row: row.evaluation),
    _Column("metric", lambda row: row.metric.replace("_", " ")),
    _Column(
        "of",
        lambda row: " ".join(filter(None, (row.case, "" if row.measured == "sae" else row.measured))) or "–",
    ),
    _Column("seed", lambda row: "all" if row.seed is None else row.seed),
    _Column("L0", lambda row: row.l0_target),
    _Column("k", lambda row: row.k or "–"),
    _Column("value", lambda row: number(row.value, 4)),
    _Column("interval", lambda row: f"{number(row.low, 4)} to {number(row.high, 4)}"),
    _Column("p", lambda row: "–" if row.p_value is None else number(row.p_value, 4)),
    _Column("above 0", lambda row: "–" if row.seeds_above is None else f"{row.seeds_above} of {row.seeds}"),
    _Column("units", lambda row: row.n),
    _Column("better", lambda row: "–" if row.higher is None else "higher" if row.higher else "lower"),
)
NUMBERS = ("L0", "k", "value", "interval", "p", "above 0", "units")
OF_DIFFERENCES = ("minus", "p", "above 0")


def _table(rows: Sequence[MaskingResultRow], caption: str, *, differences: bool) -> Html:
    columns = [column for column in COLUMNS if differences or column.name not in OF_DIFFERENCES]
    head = tag("tr", *(tag("th", c.name, scope="col", class_="num" if c.name in NUMBERS else None) for c in columns))
    body = [
        tag(
            "tr", *(tag("td", column.text(row), class_="num" if column.name in NUMBERS else None) for column in columns)
        )
        for row in rows
    ]
    return framed(caption, head, body)


def _refused(results: MaskingResults) -> Html:
    if not results.refused:
        return join([])
    names = ("arm", "k", "seed", "evaluation", "why")
    head = tag("tr", *(tag("th", name, scope="col") for name in names))
    body = [tag("tr", *(tag("td", str(one.get(name, ""))) for name in names)) for one in results.refused]
    return framed("Each with its reason", head, body)


def _saes(results: MaskingResults) -> Html:
    names = ("arm", "L0 wanted", "seed", "FVU", "L0", "dead", "identity")
    head = tag(
        "tr", *(tag("th", name, scope="col", class_="num" if 0 < i < 6 else None) for i, name in enumerate(names))
    )
    body = [
        tag(
            "tr",
            tag("th", one.arm, scope="row"),
            *(tag("td", value, class_="num") for value in (one.k, one.seed, number(one.fvu), f"{one.l0:.1f}")),
            tag("td", f"{100 * one.dead:.1f} %", class_="num"),
            tag("td", tag("code", one.digest[:16])),
        )
        for one in results.saes
    ]
    return framed(
        "FVU and L0 on text of its own kind, masked where that was masked; compare by fidelity, which is on plain text",
        head,
        body,
    )
