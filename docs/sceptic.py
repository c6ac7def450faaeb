"""The view of a result file of `perimetry bench controls`; make_results.py puts it between the marks."""

from collections.abc import Callable
from typing import Any

from performance import source, table

from perimetry.report.controls import NAMES
from perimetry.report.schema import parse_results

__all__ = ["VIEWS", "controls"]

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


VIEWS: dict[str, Callable[[dict[str, Any]], str]] = {"controls": controls}
"""View -> Markdown of a result file."""
