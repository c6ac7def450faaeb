"""What an evaluation of steering says on the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

from perimetry.report.markup import number
from perimetry.report.schema_steering import parse_steering

__all__ = ["show_steering"]

SHOWN = ("positive", "negative", "contrast")


def show_steering(results: dict[str, Any]) -> None:
    """Each intervention with its effects on all prompts and its verdict."""
    found = parse_steering(results)
    table = Table(title=found.title, caption=found.subtitle)
    for column in ("added", "times", *SHOWN, "verdict"):
        table.add_column(column)
    for said in found.verdicts:
        cells = [said.arm, f"{said.multiplier:g}"]
        for metric in SHOWN:
            wanted = (said.arm, said.multiplier, metric, 1.0)
            row = next(r for r in found.rows if (r.arm, r.multiplier, r.metric, r.share) == wanted)
            cells.append(f"{number(row.estimate, 3)} {number(row.low, 3)} to {number(row.high, 3)}")
        table.add_row(*cells, said.verdict)
    Console().print(table)
