"""The sceptic's table in a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["show_controls"]

MARKS = {True: "[green]holds[/]", False: "[bold red]fails[/]"}


def show_controls(results: Mapping[str, Any], console: Console | None = None) -> None:
    """A line a control: what was expected, what was measured, whether it holds; then how many do.

    Numbers that stand beside, of which nothing is expected, are in the report and in `results.json`.
    """
    console = console or Console(width=None if Console().is_terminal else 180)
    rows = [row for row in results["controls"] if row["holds"] is not None]
    table = Table(title="Controls [95 % interval, or what chance allows]", title_justify="left")
    for heading in ("control", "score", "against", "measure"):
        table.add_column(heading, overflow="fold")
    for heading in ("dose", "value", "interval", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("expected", no_wrap=True)
    table.add_column("", no_wrap=True)
    last = ""
    for row in rows:
        dose = f"{100 * row['dose']:g} %" if row["dose"] else ""
        name = row["control"].replace("_", " ")
        table.add_row(
            "" if name == last else name,
            escape(row["detector"]),
            escape(row["against"]),
            row["metric"].replace("_", " "),
            dose,
            f"{row['estimate']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            str(row["n"]),
            row["expected"],
            MARKS[row["holds"]],
        )
        last = name
    console.print(table)
    kept = sum(row["holds"] for row in rows)
    console.print(f"{kept} of {len(rows)} controls hold, {len(rows) - kept} fail.", highlight=False)
