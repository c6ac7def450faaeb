"""A masking study as a person would like to see it in a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from perimetry.report.masking import masking_verdicts
from perimetry.report.schema_masking import parse_masking

__all__ = ["show_masking"]

MARKS = {"good": "[green]seen[/]     ", "bad": "[red]opposite[/] ", "open": "[yellow]open[/]     "}


def show_masking(results: Mapping[str, Any], console: Console | None = None) -> None:
    """The published signs, then every arm less the plain one."""
    console = console or Console(width=None if Console().is_terminal else 160)
    for verdict in masking_verdicts(parse_masking(dict(results))):
        console.print(MARKS[verdict.tone], end="")
        console.print(verdict.text, highlight=False, markup=False)
    table = Table(title="difference to the plain arm [95 % interval], all seeds", title_justify="left")
    for name in ("evaluation", "metric", "arm", "L0", "k", "difference", "above 0 in"):
        table.add_column(name, no_wrap=True)
    for row in results["rows"]:
        if row["against"] != "none" or row["seed"] is not None or row["case"] or row["measured"] != "sae":
            continue
        box = f"{row['value']:+.4f} [dim]{row['low']:+.4f} to {row['high']:+.4f}[/]"
        about = (row["evaluation"], row["metric"], row["arm"], str(row["l0_target"]), str(row["k"] or ""))
        table.add_row(*about, box, f"{row['seeds_above']} of {row['seeds']}")
    console.print(table)
    for one in results["refused"]:
        what = f"{one['evaluation']} of {one['arm']}, L0 {one['k']}, seed {one['seed']}"
        console.print(f"not judged: {what}: {one['why']}", style="yellow", highlight=False, markup=False)
