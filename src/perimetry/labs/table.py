"""What a lab says on the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

from perimetry.report.lab import lab_verdicts
from perimetry.report.schema_lab import parse_lab

__all__ = ["show_lab"]

MARKS = {"good": "holds", "bad": "FAILS", "open": "not judged"}


def show_lab(results: dict[str, Any]) -> None:
    """Each expectation with its verdict."""
    found = parse_lab(results)
    table = Table(title=found.title, show_lines=True)
    table.add_column("")
    table.add_column("what was to come out, and what did")
    for verdict in lab_verdicts(found):
        table.add_row(MARKS[verdict.tone], verdict.text)
    Console().print(table)
