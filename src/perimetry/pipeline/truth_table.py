"""A study of known features as a person would like to see it in a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from perimetry.report.schema_truth import parse_truth
from perimetry.report.truth import SHOWN, truth_rows, truth_verdicts

__all__ = ["show_truth"]

MARKS = {"good": "[green]holds[/] ", "bad": "[red]fails[/] ", "open": "[yellow]open[/]  "}


def show_truth(results: Mapping[str, Any], console: Console | None = None) -> None:
    """What was asked, then every arm in the numbers in front."""
    console = console or Console(width=None if Console().is_terminal else 160)
    found = parse_truth(dict(results))
    for verdict in truth_verdicts(found):
        console.print(MARKS[verdict.tone], end="")
        console.print(verdict.text, highlight=False, markup=False)
    for part, metrics in SHOWN.items():
        columns = {metric: truth_rows(found, part, metric, differences=False) for metric in metrics}
        arms = list(dict.fromkeys(row.arm for rows in columns.values() for row in rows))
        if not arms:
            continue
        table = Table(title=f"{part} [95 % interval], all seeds", title_justify="left")
        for name in ("arm", *metrics):
            table.add_column(name, no_wrap=True)
        for arm in arms:
            boxes: list[str] = []
            for rows in columns.values():
                row = next((row for row in rows if row.arm == arm), None)
                boxes.append(f"{row.estimate:.3f} [dim]{row.low:.3f} to {row.high:.3f}[/]" if row else "")
            table.add_row(arm, *boxes)
        console.print(table)
