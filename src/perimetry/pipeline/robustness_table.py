"""A study of robustness as a person would like to see it in a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from perimetry.report.robustness import SHOWN, arm_rows, first_case, robustness_verdicts
from perimetry.report.schema_robustness import parse_robustness

__all__ = ["show_robustness"]

MARKS = {"good": "[green]holds[/] ", "bad": "[red]fails[/] ", "open": "[yellow]open[/]  "}
COLUMNS = SHOWN[:5]


def show_robustness(results: Mapping[str, Any], console: Console | None = None) -> None:
    """What was asked, then every arm in the numbers in front."""
    console = console or Console(width=None if Console().is_terminal else 200)
    found = parse_robustness(dict(results))
    for verdict in robustness_verdicts(found):
        console.print(MARKS[verdict.tone], end="")
        console.print(verdict.text, highlight=False, markup=False)
    first = first_case(found)
    table = Table(title=f"{first}, held-out text [95 % interval], all seeds", title_justify="left")
    for name in ("arm", *COLUMNS):
        table.add_column(name.replace("_", " "), no_wrap=True)
    cells = {
        metric: {r.arm: r for r in (*arm_rows(found, metric, first), *arm_rows(found, metric, ""))}
        for metric in COLUMNS
    }
    for arm in found.arms:
        rows = [cells[metric].get(arm) for metric in COLUMNS]
        table.add_row(arm, *(f"{r.estimate:.3f} [dim]{r.low:.3f} to {r.high:.3f}[/]" if r else "" for r in rows))
    console.print(table)
