"""The views of a tuning and of a study of robustness; make_results.py puts them between the marks."""

from collections.abc import Callable, Sequence
from typing import Any

from measured import whole_file
from performance import source, table

from perimetry.report.robustness import SHOWN, arm_rows, first_case, robustness_charts, robustness_verdicts
from perimetry.report.schema_robustness import RobustnessResultRow, RobustnessResults, parse_robustness, parse_tuned
from perimetry.report.tuned import tuned_pairs

__all__ = ["VIEWS", "charts", "claims", "taken", "tuned", "tuned_taken"]

TONES = {"good": "**holds:** ", "bad": "**fails:** ", "open": "**open:** "}


def taken(whole: dict[str, Any]) -> dict[str, Any]:
    """What is committed of a study: all of it, once it is checked."""
    parse_robustness(whole)
    return whole


def tuned_taken(whole: dict[str, Any]) -> dict[str, Any]:
    """What is committed of one tuning: all of it, once it is checked."""
    parse_tuned(whole)
    return whole


def _view(make: Callable[[RobustnessResults], str]) -> Callable[[dict[str, Any]], str]:
    def view(whole: dict[str, Any]) -> str:
        return "\n\n".join([make(parse_robustness(whole)), source(whole)])

    return view


def claims(results: RobustnessResults) -> str:
    """Each claim."""
    return "\n".join(f"* {TONES.get(v.tone, '')}{v.text}" for v in robustness_verdicts(results))


def _box(row: RobustnessResultRow, *, signed: bool) -> str:
    form = "{:+.3f}" if signed else "{:.3f}"
    return f"{form.format(row.estimate)} ({form.format(row.low)} to {form.format(row.high)})"


def _table(results: RobustnessResults, metrics: Sequence[str], cases: Sequence[str]) -> str:
    columns = {(m, c): arm_rows(results, m, c) for m in metrics for c in cases}
    columns = {key: rows for key, rows in columns.items() if rows}
    lines: list[list[str]] = []
    for arm in results.arms:
        rows = [next((r for r in found if r.arm == arm), None) for found in columns.values()]
        lines.append([arm.replace("_", " "), *(_box(r, signed=False) if r else "" for r in rows)])
    return table(["", *(f"`{m}`" + (f", {c}" if len(cases) > 2 and c else "") for m, c in columns)], lines)


def _arms(results: RobustnessResults) -> str:
    return _table(results, SHOWN, (first_case(results), ""))


def _cases(metric: str) -> Callable[[RobustnessResults], str]:
    def view(results: RobustnessResults) -> str:
        cases = list(dict.fromkeys(row.case for row in results.rows if row.metric == metric))
        return _table(results, (metric,), ["", *cases])

    return view


def charts(whole: dict[str, Any]) -> dict[str, str]:
    """Name of a figure -> a whole SVG file."""
    return {chart.name: whole_file(chart.picture) for chart in robustness_charts(parse_robustness(whole))}


def tuned(whole: dict[str, Any]) -> str:
    """Before and after one tuning."""
    lines: list[list[str]] = []
    for (case, metric), arms in tuned_pairs(parse_tuned(whole).rows).items():
        boxes = {arm: f"{r.estimate:.3f} ({r.low:.3f} to {r.high:.3f})" for arm, r in arms.items()}
        lines.append([case, f"`{metric}`", boxes.get("base", ""), boxes.get("tuned", "")])
    return "\n\n".join([table(["text", "number", "before", "after"], lines), source(whole)])


VIEWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "robustify": tuned,
    "robustness-arms": _view(_arms),
    "robustness-claims": _view(claims),
    "robustness-shift": _view(_cases("shift")),
    "robustness-unseen": _view(_cases("gap_closed")),
}
"""View -> Markdown of a result file."""
