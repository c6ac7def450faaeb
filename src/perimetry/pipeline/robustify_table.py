"""A tuning as a person would like to see it in a terminal: every term while it runs, what it gained and cost afterwards."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from perimetry.report.schema_robustness import TunedRow, parse_tuned
from perimetry.report.tuned import tuned_pairs
from perimetry.robust.recipe import TERMS

__all__ = ["TuneBar", "show_robustify", "terms_of"]

PERCENT = ("recovered", "gap_closed", "clean_rise", "agreement", "recovered_all")


def terms_of(line: Mapping[str, Any]) -> str:
    """The terms of a line of the log, and what the last look said.

    >>> terms_of({"clean": 3.5, "perturbed": 4.25, "guard_rise": -0.01})
    'clean 3.500  perturbed 4.250  watched text -1.0 %'
    """
    found = [f"{name} {line[name]:.3f}" for name in TERMS if name in line]
    if "guard_rise" in line:
        found.append(f"watched text {100 * line['guard_rise']:+.1f} %")
    return "  ".join(found)


class TuneBar:
    """A bar over the updates with every term; shows nothing unless it is asked to."""

    def __init__(self, updates: int, *, shown: bool) -> None:
        columns = (TextColumn("tuning"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        self.bar = Progress(
            *columns,
            TextColumn("{task.fields[line]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        self.updates = updates
        self.task: TaskID | None = None

    def __enter__(self) -> "TuneBar":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def step(self, line: dict[str, Any]) -> None:
        """One update done."""
        if self.task is None:
            self.task = self.bar.add_task("tuning", total=self.updates, line="")
        self.bar.update(self.task, completed=line["step"], line=terms_of(line))


def show_robustify(results: Mapping[str, Any], console: Console | None = None) -> None:
    """Before and after in every number, each with its interval."""
    console = console or Console(width=None if Console().is_terminal else 160)
    found = parse_tuned(dict(results))
    table = Table(title=f"{found.title}: held-out text, [95 % interval]", title_justify="left")
    for name in ("text", "number", "before", "after"):
        table.add_column(name, no_wrap=True)
    for (case, metric), arms in tuned_pairs(found.rows).items():
        boxes = {arm: _box(row) for arm, row in arms.items()}
        table.add_row(case, metric.replace("_", " "), boxes.get("base", ""), boxes.get("tuned", ""))
    console.print(table)


def _box(row: TunedRow) -> str:
    scale, unit = (100, " %") if row.metric in PERCENT else (1, "")
    digits = 1 if unit else 3
    return (
        f"{scale * row.estimate:.{digits}f}{unit} [dim]{scale * row.low:.{digits}f} to {scale * row.high:.{digits}f}[/]"
    )
