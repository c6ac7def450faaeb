"""The figures of evaluations: headline numbers with their intervals, and areas by the number of latents a probe may read."""

import math
from collections.abc import Sequence

from perimetry.report.figures import Axis, Dot, Series, dot_chart, line_chart
from perimetry.report.markup import Html, number
from perimetry.report.schema_evaluation import EvaluationResults, EvaluationRow

__all__ = ["axis_span", "axis_ticks", "curve_figures", "dot_figures"]

DOTS = (
    ("fidelity", "explained_variance"),
    ("fidelity", "loss_recovered"),
    ("absorption", "full_absorption"),
    ("absorption", "main_f1"),
    ("ground_truth", "f1"),
    ("ground_truth", "mcc"),
)
CURVES = (("probing", "auroc"), ("ood_probing", "auroc_ood"), ("ood_probing", "gap"))
MOST_LINES = 6
Picture = tuple[Html, str]
"""With its caption."""


def _name(row: EvaluationRow) -> str:
    beside = row.control.replace("_", " ") or ("" if row.arm == "sae" else row.arm)
    return f"{row.sae}, {beside}" if beside else row.sae


def axis_span(low: float, high: float, ends: tuple[float, float] | None = None) -> tuple[float, float]:
    """An axis around some values, with a margin; with `ends` at least within these, where the values are."""
    if ends and ends[0] <= low and high <= ends[1]:
        return ends
    margin = max((high - low) * 0.08, 1e-3)
    return low - margin, high + margin


def axis_ticks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    """About five round values."""
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    while (high - low) / step > 6:
        step *= 2 if (high - low) / step <= 12 else 5
    first = math.ceil(low / step)
    values = [i * step for i in range(first, math.floor(high / step) + 1)]
    digits = max(0, -math.floor(math.log10(step)))
    return tuple((value, number(value, max(1, digits))) for value in values)


def dot_figures(results: EvaluationResults) -> list[Picture]:
    """A headline number a figure, a dictionary or control a line."""
    found: list[Picture] = []
    for evaluation, metric in DOTS:
        rows = _plain(results, evaluation, metric)
        if len(rows) < 2:
            continue
        low, high = axis_span(min(r.low for r in rows), max(r.high for r in rows), (0.0, 1.0))
        label = f"{evaluation}: {metric.replace('_', ' ')}"
        axis = Axis(f"{metric.replace('_', ' ')}, {rows[0].unit}", low, high, axis_ticks(low, high))
        dots = [Dot(_name(r), r.estimate, r.low, r.high, 0 if not r.control and r.arm == "sae" else 1) for r in rows]
        better = {True: " Higher is better.", False: " Lower is better.", None: ""}[rows[0].higher]
        found.append((dot_chart(dots, axis, title=label), f"{label}. Lines: 95 % bootstrap over units.{better}"))
    return found


def _plain(results: EvaluationResults, evaluation: str, metric: str) -> list[EvaluationRow]:
    return [
        r for r in results.rows if (r.evaluation, r.metric) == (evaluation, metric) and not r.against and not r.case
    ]


def curve_figures(results: EvaluationResults) -> list[Picture]:
    """Area over the number of latents, a line a dictionary or control; probes on all of the activation as a line across."""
    found: list[Picture] = []
    for evaluation, metric in CURVES:
        rows = _plain(results, evaluation, metric)
        ks = sorted({r.k for r in rows if r.k})
        if len(ks) < 2:
            continue
        place = {k: float(i) for i, k in enumerate(ks)}
        lines = _lines([r for r in rows if r.k], place)
        raw = [r.estimate for r in rows if r.arm == "raw"]
        values = [*(v for line in lines for v in (*line.lows, *line.highs)), *raw]
        low, high = axis_span(min(values), max(values))
        label = f"{evaluation}: {metric.replace('_', ' ')} by latents of the probe"
        x = Axis("latents", -0.15, len(ks) - 0.85, tuple((place[k], str(k)) for k in ks))
        chart = line_chart(
            lines, x, Axis("AUC", low, high, axis_ticks(low, high)), title=label, level=raw[0] if raw else None
        )
        across = " Dotted: a probe on all of the activation." if raw else ""
        found.append((chart, f"{label}. Bands: 95 % bootstrap over sets.{across}"))
    return found


def _lines(rows: Sequence[EvaluationRow], place: dict[int, float]) -> list[Series]:
    names = list(dict.fromkeys(_name(row) for row in rows if row.arm == "sae"))[:MOST_LINES]
    lines: list[Series] = []
    for slot, name in enumerate(names):
        own = sorted((r for r in rows if _name(r) == name), key=lambda r: r.k)
        columns = [(place[r.k], r.estimate, r.low, r.high) for r in own]
        lines.append(Series(name, *(tuple(column) for column in zip(*columns, strict=True)), slot=slot))
    return lines
