"""The views of a study of known features; make_results.py puts them between the marks."""

from collections.abc import Callable
from typing import Any

from measured import whole_file
from performance import source, table

from perimetry.report.schema_truth import TruthResultRow, TruthResults, parse_truth
from perimetry.report.truth import SHOWN, truth_charts, truth_rows, truth_verdicts

__all__ = ["VIEWS", "charts", "claims", "taken"]

TONES = {"good": "**holds:** ", "bad": "**fails:** ", "open": "**open:** "}


def taken(whole: dict[str, Any]) -> dict[str, Any]:
    """What is committed of such a study: all of it, once it is checked."""
    parse_truth(whole)
    return whole


def _view(make: Callable[[TruthResults], str]) -> Callable[[dict[str, Any]], str]:
    def view(whole: dict[str, Any]) -> str:
        return "\n\n".join([make(parse_truth(whole)), source(whole)])

    return view


def claims(results: TruthResults) -> str:
    """Each claim."""
    return "\n".join(f"* {TONES.get(v.tone, '')}{v.text}" for v in truth_verdicts(results))


def _box(row: TruthResultRow, *, signed: bool) -> str:
    form = "{:+.4f}" if signed else "{:.4f}"
    return f"{form.format(row.estimate)} ({form.format(row.low)} to {form.format(row.high)})"


def _grid(results: TruthResults, part: str, *, differences: bool) -> str:
    found = {m: truth_rows(results, part, m, differences=differences) for m in SHOWN[part]}
    arms = list(dict.fromkeys((row.arm, row.against) for rows in found.values() for row in rows))
    lines: list[list[str]] = []
    for arm, against in arms:
        boxes: list[str] = []
        for rows in found.values():
            row = next((r for r in rows if (r.arm, r.against) == (arm, against)), None)
            boxes.append(_box(row, signed=differences) if row else "")
        lines.append([f"{arm} minus {against}" if against else arm, *boxes])
    return table(["", *(f"`{metric}`" for metric in found)], lines)


def _part(part: str, *, differences: bool = False) -> Callable[[dict[str, Any]], str]:
    return _view(lambda results: _grid(results, part, differences=differences))


def charts(whole: dict[str, Any]) -> dict[str, str]:
    """Name of a figure -> a whole SVG file."""
    return {chart.name: whole_file(chart.picture) for chart in truth_charts(parse_truth(whole))}


VIEWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "truth-claims": _view(claims),
    "truth-order": _part("order"),
    "truth-order-differences": _part("order", differences=True),
    "truth-causal": _part("causal"),
    "truth-causal-differences": _part("causal", differences=True),
}
"""View -> Markdown of a result file."""
