"""The view of a result file of `perimetry bench controls`; make_results.py puts it between the marks."""

from collections.abc import Callable
from typing import Any

from performance import source, table

from perimetry.report.controls import NAMES
from perimetry.report.schema import parse_results

__all__ = ["VIEWS", "controls", "false_concepts"]

HEAD = ("control", "score", "against", "dose", "measure", "value", "n", "expected", "verdict")


def controls(whole: dict[str, Any]) -> str:
    """A line a control, those that fail like the others; how many hold; what made them."""
    results = parse_results({**whole, "rows": [], "controls": whole["rows"]})
    rows = [row for row in results.controls if row.holds is not None]
    lines = [
        [
            NAMES.get(row.control, row.control),
            f"`{row.detector}`",
            row.against,
            f"{100 * row.dose:g} %" if row.dose else "",
            row.metric.replace("_", " "),
            f"{row.estimate:.3f} ({row.low:.3f} to {row.high:.3f})",
            f"{row.n:,}",
            row.expected,
            "holds" if row.holds else "**fails**",
        ]
        for row in rows
    ]
    kept = sum(bool(row.holds) for row in rows)
    count = f"{kept} of {len(rows)} controls hold, {len(rows) - kept} fail."
    return "\n\n".join([table(HEAD, lines), count, f"{source(whole)} {results.subtitle}".strip()])


def false_concepts(whole: dict[str, Any]) -> str:
    """How well the two definitions predict the oracle, and what flagging every active concept gives."""
    results = parse_results({**whole, "rows": [], "controls": whole["rows"]})
    mine = [row for row in results.controls if row.control == "f2_predicts_f3" and not row.against]
    cells = {(row.dose, row.detector, row.metric): row for row in mine}
    metrics = ("precision", "recall", "f_score", "informedness")
    lines: list[list[str]] = []
    for dose, detector in dict.fromkeys((row.dose, row.detector) for row in mine if row.metric in metrics):
        boxes = [cells[dose, detector, metric] for metric in metrics]
        lines.append(
            [f"{100 * dose:g} %", f"`{detector}`", *(f"{b.estimate:.3f} ({b.low:.3f} to {b.high:.3f})" for b in boxes)]
        )
    head = ("typos", "flags", "precision", "recall", "F-score", "recall less false flags")
    return "\n\n".join([table(head, sorted(lines, key=lambda line: float(line[0].split()[0]))), source(whole)])


VIEWS: dict[str, Callable[[dict[str, Any]], str]] = {"controls": controls, "false-concepts": false_concepts}
"""View -> Markdown of a result file."""
