"""What a check of edits says on the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

from perimetry.report.edit_check import edit_row
from perimetry.report.markup import number
from perimetry.report.schema_edit_check import CheckedEdit, EditCheckResults, parse_edit_check

__all__ = ["show_edit_check"]

COLUMNS = {"nll": "NLL", "siblings": "facts beside", "concepts": "shift score", "active": "concepts changed"}


def show_edit_check(results: dict[str, Any], console: Console | None = None) -> None:
    """A line an edit and one for the drawn updates beside it, then the rings that say nothing of this model."""
    console = console or Console(width=None if Console().is_terminal else 200)
    found = parse_edit_check(results)
    metrics = [m for m in COLUMNS if any(r.metric == m for r in found.rows)]
    rings = [r.ring for r in found.rings if not r.refusal]
    table = Table(title=found.title, caption=found.subtitle)
    names = [*(f"R {r} / R_s" for r in rings), *(f"order {r}" for r in rings), *(COLUMNS[m] for m in metrics)]
    for column in ("edit", "p(new)", "size", *names, "rings"):
        table.add_column(column)
    for one in found.edits:
        table.add_row(one.edit, *_cells(found, one, rings, metrics, "edit"), _flags(one))
        if any(r.edit == one.edit and r.arm == "drawn" for r in found.rows):
            table.add_row("  drawn, same norm", *_cells(found, one, rings, metrics, "drawn"), "", style="dim")
    console.print(table)
    for ring in found.rings:
        if ring.refusal:
            console.print(f"{ring.ring} is refused: {ring.refusal}", highlight=False, markup=False)


def _flags(one: CheckedEdit) -> str:
    return "; ".join(f"{r.ring}: {r.flag}" for r in one.rings if r.flag != "none") or "none flagged"


def _cells(found: EditCheckResults, one: CheckedEdit, rings: list[str], metrics: list[str], arm: str) -> list[str]:
    def cell(metric: str, probe: str = "") -> str:
        row = edit_row(found, one.edit, metric, probe, arm)
        if row is None:
            return ""
        return number(row.after if metric in ("p_target", "size") else row.estimate, 3)

    return [
        *(cell("p_target"), cell("size")),
        *(f"{cell('ring_r', r)} / {cell('ring_r_scaled', r)}" for r in rings),
        *(cell("ring_order", r) for r in rings),
        *(cell(m) for m in metrics),
    ]
