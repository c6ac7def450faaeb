"""A bar a training on standard error: FVU, L0, dead share, tokens per second."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["TrainProgress"]


class TrainProgress:
    """Shows nothing unless it is asked to."""

    def __init__(self, *, shown: bool) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[line]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "TrainProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def begin(self, name: str, steps: int, done: int) -> None:
        """Add the bar of one training."""
        self.tasks[name] = self.bar.add_task(name, total=steps, completed=done, line="")

    def step(self, name: str, row: dict[str, Any] | None) -> None:
        """One step done; `row` is its line of the log, where one was due."""
        if row is None:
            self.bar.advance(self.tasks[name])
            return
        causal = f"causal {row['causal_relative']:.3f}  " if "causal" in row else ""
        line = (
            f"FVU {row['fvu']:.3f}  L0 {row['l0']:.1f}  dead {100 * row['dead']:.1f} %  {causal}"
            f"{row['tokens_per_s']:,.0f} tokens/s"
        )
        self.bar.update(self.tasks[name], completed=row["step"], line=line)
