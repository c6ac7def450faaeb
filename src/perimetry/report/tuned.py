"""The page of one tuning: every number before and after."""

from collections.abc import Sequence

from perimetry.report.making import making_section
from perimetry.report.markup import Html, Node, number
from perimetry.report.measures import meanings
from perimetry.report.schema_robustness import TunedResults, TunedRow
from perimetry.report.sections import Section
from perimetry.report.tables import grid, settings_table

__all__ = ["tuned_pairs", "tuned_sections"]

COLUMNS = ("text", "number", "before", "interval", "after", "interval", "texts")
WORDS = 2
"""Columns that hold words."""


def tuned_sections(results: TunedResults) -> list[Section]:
    """The sections of the page."""
    return [
        Section("change", "Before and after, on held-out text", _table(results.rows)),
        Section("data", "What was tuned on", settings_table("Texts", results.data)),
        Section("definitions", "What the numbers mean", meanings(results.metrics)),
        Section("making", "How this was made", making_section(results)),
    ]


def tuned_pairs(rows: Sequence[TunedRow]) -> dict[tuple[str, str], dict[str, TunedRow]]:
    """Text and number -> its row before and after, as far as there is one."""
    found: dict[tuple[str, str], dict[str, TunedRow]] = {}
    for row in rows:
        case = (row.case or "clean") + ("" if row.seen else " (not tuned on)")
        found.setdefault((case, row.metric), {})[row.arm] = row
    return found


def _table(rows: Sequence[TunedRow]) -> Html:
    found: list[list[Node]] = []
    for (case, metric), arms in tuned_pairs(rows).items():
        cells: list[Node] = [case, metric.replace("_", " ")]
        for arm in ("base", "tuned"):
            row = arms.get(arm)
            cells += [number(row.estimate, 4), f"{number(row.low, 4)} to {number(row.high, 4)}"] if row else ["–", "–"]
        cells.append(next(iter(arms.values())).n)
        found.append(cells)
    return grid("95 % intervals, bootstrap over texts", COLUMNS, WORDS, found)
