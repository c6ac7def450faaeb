"""The sections of the report, each a heading and what stands under it; a section without content is left out."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from perimetry.report.figures import Axis, Series, histogram, line_chart
from perimetry.report.heatmap import example_section, scale_of
from perimetry.report.markup import Html, Node, join, number, tag
from perimetry.report.picking import arms_of, best_baseline, dose_name, first_seed, is_dial, named_baselines
from perimetry.report.schema import ResultRow, Results, RocCurve, TrainingCurve
from perimetry.report.tables import (
    detector_table,
    difference_table,
    false_alarm_table,
    matching_table,
    seed_table,
    settings_table,
)
from perimetry.report.verdicts import verdicts

__all__ = ["Section", "sections"]

SHARES = tuple((i / 10, number(i / 10, 1)) for i in range(4, 11))
TRAINED = {
    "fvu": "share of variance not explained (lower is better)",
    "l0": "active concepts per token",
    "dead": "share or number of dead latents",
    "loss": "loss",
}
TONES = {"good": "borne out: ", "bad": "not borne out: ", "open": "open: ", "plain": "", "note": ""}


class Section(NamedTuple):
    """A part of the page."""

    anchor: str
    """Its id."""
    title: str
    """Its heading."""
    content: Html
    """What stands under it."""


def sections(results: Results) -> list[Section]:
    """All sections that have something to show."""
    found = [
        Section("verdict", "What came out", _verdicts(results)),
        Section("doses", "Score against dose", _dose_figures(results)),
        Section("detectors", "Every detector and baseline", _suites(results)),
        Section("roc", "At few false alarms", _roc(results)),
        Section("calibration", "False alarms on clean text", _calibration(results)),
        Section("examples", "Prompts, token by token", _examples(results)),
        Section("seeds", "Other SAE seeds", _seeds(results)),
        Section("training", "Training", _training(results)),
        Section("negatives", "How the negatives match", _matching(results)),
        Section("making", "How this was made", _making(results)),
    ]
    return [section for section in found if section.content]


def _verdicts(results: Results) -> Html:
    items = [
        tag("li", tag("span", TONES[v.tone], class_="sr") if TONES[v.tone] else None, v.text, class_=v.tone)
        for v in verdicts(results)
    ]
    chosen = tag("p", results.validation, class_="muted") if results.validation else None
    return join([tag("ul", *items, class_="verdicts"), chosen]) if items else join([chosen])


def _slots(results: Results) -> dict[str, int]:
    """One slot of the palette for each detector that a figure may show: the main score first, then the baselines."""
    best = [best_baseline(results.rows, suite) for suite in dict.fromkeys(row.suite for row in results.rows)]
    names = [results.main, *named_baselines(results), *best, *(curve.detector for curve in results.roc)]
    return {name: slot for slot, name in enumerate(dict.fromkeys(filter(None, names)))}


def _figure(picture: Html, caption: str) -> Html:
    return tag("figure", picture, tag("figcaption", caption))


def _dose_figures(results: Results) -> Html:
    rows, slots = first_seed(results.rows), _slots(results)
    figures: list[Html] = []
    for suite in dict.fromkeys(row.suite for row in rows):
        arms = arms_of(rows, suite)
        if not is_dial(arms):
            continue
        shown = [results.main, *named_baselines(results), best_baseline(rows, suite)]
        for family in dict.fromkeys(arm.family for arm in arms if arm.negatives == "all"):
            own = [r for r in rows if r.suite == suite and r.family == family and r.negatives == "all"]
            figures.append(_dose_figure(own, suite, family, {n: slots[n] for n in shown if n}))
    return tag("div", *figures, class_="figures") if figures else join([])


def _dose_figure(rows: Sequence[ResultRow], suite: str, family: str, slots: Mapping[str, int]) -> Html:
    areas = [row for row in rows if row.metric == "auroc"]
    doses = sorted({row.dose for row in areas})
    place = {dose: float(i) for i, dose in enumerate(doses)}
    lines: list[Series] = []
    for name, slot in slots.items():
        own = sorted((row for row in areas if row.detector == name), key=lambda row: row.dose)
        if own:
            columns = [(place[r.dose], r.estimate, r.low, r.high) for r in own]
            lines.append(Series(name, *(tuple(column) for column in zip(*columns, strict=True)), slot=slot))
    floor = 0.4 if min((min(line.lows) for line in lines), default=0.5) >= 0.4 else 0.0
    ticks = SHARES if floor else tuple((i / 5, number(i / 5, 1)) for i in range(6))
    label = f"{suite}: AUROC by dose" + ("" if family in ("all", suite) else f", {family}")
    x = Axis("dose", -0.15, len(doses) - 0.85, tuple((place[dose], dose_name(dose)) for dose in doses))
    chart = line_chart(lines, x, Axis("AUROC", floor, 1.0, ticks), title=label, level=0.5)
    return _figure(chart, f"{label}. Bands: 95 % bootstrap by pair. Dotted: no use (.5).")


def _suites(results: Results) -> Html:
    rows = first_seed(results.rows)
    parts: list[Node] = []
    for suite in dict.fromkeys(row.suite for row in rows):
        own = [row for row in rows if row.suite == suite]
        names = {row.detector for row in own}
        bare = frozenset(name for name in names if "." not in name or name == results.main)
        parts += [tag("h3", suite), detector_table(own, suite, "auroc", main=results.main, only=bare)]
        if names - bare:
            table = detector_table(own, suite, "auroc", main=results.main)
            parts.append(_more(f"AUROC of all {len(names)} scores, other poolings included", table))
        parts.append(_more("Differences to the baselines", difference_table(own, suite)))
        for metric, label in (
            ("tpr_at_1_fpr", "Share caught at 1 % false alarms"),
            ("fpr_at_95_tpr", "False alarms at 95 % caught"),
        ):
            if any(row.metric == metric for row in own):
                parts.append(_more(label, detector_table(own, suite, metric, main=results.main)))
        parts += _dose_measures(own, suite)
    return join(parts)


def _dose_measures(rows: Sequence[ResultRow], suite: str) -> list[Node]:
    fits = [row for row in rows if row.metric in ("spearman_dose", "rising_steps")]
    if not fits:
        return []
    head = tag(
        "tr", *(tag("th", name, scope="col") for name in ("detector", "kind of shift", "measure", "value", "interval"))
    )
    names = {"spearman_dose": "rank correlation with dose", "rising_steps": "share of rising steps"}
    body = [
        tag(
            "tr",
            tag("th", row.detector, scope="row"),
            tag("td", row.family),
            tag("td", names[row.metric]),
            tag("td", number(row.estimate), class_="num"),
            tag("td", f"{number(row.low)} to {number(row.high)}", class_="num"),
        )
        for row in sorted(fits, key=lambda row: (row.metric, row.family, -row.estimate))
    ]
    caption = "Within each passage: does the score follow the dose? 1 = always."
    table = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return [_more(f"Score against dose in {suite}", tag("div", table, class_="scroll"))]


def _more(label: str, content: Html) -> Html:
    return tag("details", tag("summary", label), content)


def _roc(results: Results) -> Html:
    slots = _slots(results)
    groups: dict[tuple[str, str, float], list[RocCurve]] = {}
    for curve in results.roc:
        groups.setdefault((curve.suite, curve.family, curve.dose), []).append(curve)
    figures: list[Html] = []
    for (suite, family, dose), curves in groups.items():
        arms = arms_of(results.rows, suite)
        whole = family == "all" or len({arm.family for arm in arms}) == 1
        if not whole:
            continue
        lines = [Series(c.detector, c.fpr, c.tpr, slot=slots[c.detector]) for c in curves[:6]]
        place = f"{suite}, {dose_name(dose)}" if is_dial(arms) else suite
        top = max(max(line.xs) for line in lines)
        x = Axis("false-alarm rate", 0.0, top, tuple((top * i / 5, number(top * i / 5, 2)) for i in range(6)))
        y = Axis("share caught", 0.0, 1.0, tuple((i / 5, number(i / 5, 1)) for i in range(6)))
        figures.append(_figure(line_chart(lines, x, y, title=f"Share caught, {place}"), f"{place}."))
    return tag("div", *figures, class_="figures") if figures else join([])


def _calibration(results: Results) -> Html:
    parts: list[Node] = []
    if results.false_alarms:
        parts.append(false_alarm_table(results.false_alarms))
    figures = [
        _figure(
            histogram(entry.counts, title=f"p-values of clean test prompts, {entry.group}", label="p-value"),
            f"{entry.group}: {sum(entry.counts)} clean test prompts.",
        )
        for entry in results.p_values
    ]
    if figures:
        parts.append(tag("div", *figures, class_="figures"))
    if parts:
        note = "The rate holds for inputs exchangeable with the calibration texts; it is no guarantee against an adversary."
        parts.insert(0, tag("p", note, class_="muted"))
    return join(parts)


def _examples(results: Results) -> Html:
    if not results.examples:
        return join([])
    scale = scale_of(results.examples)
    key = tag("p", "near clean text", tag("span", class_="key"), "far from it", class_="muted")
    parts = [example_section(example, scale, unfold=i == 0) for i, example in enumerate(results.examples)]
    return join([key, *parts])


def _seeds(results: Results) -> Html:
    many = any(row.seeds > 1 and row.detector == results.main for row in results.seeds)
    return seed_table(results.seeds, results.main) if many else join([])


def _training(results: Results) -> Html:
    figures: list[Html] = []
    for metric, label in TRAINED.items():
        curves = [curve for curve in results.training if any(metric in point for point in curve.points)]
        if curves:
            figures.append(_training_figure(curves, metric, label))
    return tag("div", *figures, class_="figures") if figures else join([])


def _training_figure(curves: Sequence[TrainingCurve], metric: str, label: str) -> Html:
    unit = "tokens" if all("tokens" in point for curve in curves for point in curve.points) else "step"
    lines: list[Series] = []
    for slot, curve in enumerate(curves[:6]):
        points = [(float(p[unit]), float(p[metric])) for p in curve.points if _both(p, unit, metric)]
        if points:
            xs, ys = zip(*_thinned(points), strict=True)
            lines.append(Series(curve.label, tuple(xs), tuple(ys), slot=slot))
    right = max((max(line.xs) for line in lines), default=1.0) or 1.0
    top = max((max(line.ys) for line in lines), default=1.0) or 1.0
    x = Axis(unit, 0.0, right, tuple((right * i / 4, f"{right * i / 4:,.3g}") for i in range(5)))
    y = Axis(metric, 0.0, top * 1.05, tuple((top * i / 4, f"{top * i / 4:.3g}") for i in range(5)))
    return _figure(line_chart(lines, x, y, title=f"Training: {metric}"), f"{metric}: {label}.")


def _both(point: dict[str, Any], *keys: str) -> bool:
    return all(isinstance(point.get(key), int | float) for key in keys)


def _thinned(points: list[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    step = max(1, len(points) // most)
    return points[::step] if points[::step][-1] == points[-1] else [*points[::step], points[-1]]


def _matching(results: Results) -> Html:
    return join(matching_table(suite, matching) for suite, matching in results.matching.items())


def _making(results: Results) -> Html:
    hardware = results.hardware if isinstance(results.hardware, dict) else {"machine": results.hardware}
    facts = settings_table("Where and when", {"version": results.version, "date": results.date, **hardware})
    parts: list[Node] = [tag("p", "Make it again:"), tag("pre", tag("code", results.command)), facts]
    if results.configuration:
        parts.append(_more("Every setting", settings_table("Configuration", results.configuration)))
    return join(parts)
