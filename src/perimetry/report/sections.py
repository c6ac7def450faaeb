"""The sections of the report, each a heading and what stands under it; a section without content is left out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from perimetry.report.apart import benign_section
from perimetry.report.controls import controls_section
from perimetry.report.curves import dose_figures, figure, roc_figures
from perimetry.report.damage import damage_section
from perimetry.report.figures import Axis, Series, histogram, line_chart
from perimetry.report.heatmap import example_section, scale_of
from perimetry.report.layers import layer_section
from perimetry.report.making import making_section, matching_section
from perimetry.report.markup import Html, Node, join, tag
from perimetry.report.measures import measure_tables, more
from perimetry.report.picking import first_seed, is_apart
from perimetry.report.schema import Results, TrainingCurve
from perimetry.report.tables import (
    detector_table,
    difference_table,
    false_alarm_table,
    seed_table,
)
from perimetry.report.verdicts import verdicts

__all__ = ["Section", "sections"]

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
        Section("controls", "What a sceptic would try", controls_section(results)),
        Section("doses", "Score against dose", dose_figures(results)),
        Section("detectors", "Every detector and baseline", _suites(results)),
        Section("roc", "At few false alarms", roc_figures(results)),
        Section("damage", "Damage to the model, and scores", damage_section(results)),
        Section("apart", "Novel, and harmless", benign_section(results)),
        Section("calibration", "False alarms on clean text", _calibration(results)),
        Section("examples", "Prompts, token by token", _examples(results)),
        Section("seeds", "Other SAE seeds", _seeds(results)),
        Section("layers", "Other layers", layer_section(results)),
        Section("training", "Training", _training(results)),
        Section("negatives", "How the negatives match", matching_section(results)),
        Section("making", "How this was made", making_section(results)),
    ]
    return [section for section in found if section.content]


def _verdicts(results: Results) -> Html:
    items = [
        tag("li", tag("span", TONES[v.tone], class_="sr") if TONES[v.tone] else None, v.text, class_=v.tone)
        for v in verdicts(results)
    ]
    chosen = tag("p", results.validation, class_="muted") if results.validation else None
    return join([tag("ul", *items, class_="verdicts"), chosen]) if items else join([chosen])


def _suites(results: Results) -> Html:
    rows = first_seed(results.rows)
    parts: list[Node] = []
    for suite in dict.fromkeys(row.suite for row in rows):
        if is_apart(results, suite):
            continue
        own = [row for row in rows if row.suite == suite]
        names = {row.detector for row in own if row.metric == "auroc"}
        bare = frozenset(name for name in names if "." not in name or name == results.main)
        parts += [tag("h3", suite), detector_table(own, suite, "auroc", main=results.main, only=bare)]
        if names - bare:
            table = detector_table(own, suite, "auroc", main=results.main)
            parts.append(more(f"AUROC of all {len(names)} scores, other poolings included", table))
        parts.append(more("Differences to the baselines", difference_table(own, suite)))
        for metric, label in (
            ("tpr_at_1_fpr", "Share caught at 1 % false alarms"),
            ("fpr_at_95_tpr", "False alarms at 95 % caught"),
        ):
            if any(row.metric == metric for row in own):
                parts.append(more(label, detector_table(own, suite, metric, main=results.main)))
        parts += measure_tables(own, suite)
    return join(parts)


def _calibration(results: Results) -> Html:
    parts: list[Node] = []
    if results.false_alarms:
        parts.append(false_alarm_table(results.false_alarms))
    figures = [
        figure(
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
    return figure(line_chart(lines, x, y, title=f"Training: {metric}"), f"{metric}: {label}.")


def _both(point: dict[str, Any], *keys: str) -> bool:
    return all(isinstance(point.get(key), int | float) for key in keys)


def _thinned(points: list[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    step = max(1, len(points) // most)
    return points[::step] if points[::step][-1] == points[-1] else [*points[::step], points[-1]]
