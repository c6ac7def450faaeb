"""A study as a person would like to see it in a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["show_study"]

LEADERS = 8


def show_study(results: Mapping[str, Any], console: Console | None = None) -> None:
    """The leading concept scores and baselines on the validation suites, then what the test suites said."""
    console = console or Console(width=None if Console().is_terminal else 160)
    for kind in ("concept", "baseline"):
        order = sorted((c for c in results["cells"] if c["kind"] == kind), key=lambda c: -c["mean"])
        table = Table(title=f"validation: {min(LEADERS, len(order))} of {len(order)} {kind}s", title_justify="left")
        table.add_column("detector", no_wrap=True)
        for heading in ("layer", "architecture", "width", "AUROC", "worst seed", "best seed"):
            table.add_column(heading, justify="right", no_wrap=True)
        for cell in order[:LEADERS]:
            where = (str(cell["layer"]), escape(cell["architecture"]) or "-", str(cell["width"] or "-"))
            table.add_row(cell["detector"], *where, *(f"{cell[name]:.3f}" for name in ("mean", "least", "greatest")))
        console.print(table)
    console.print(results["rule"], highlight=False)
    table = Table(title=f"test, looked at {results['confirmed']['looks']} time(s)", title_justify="left")
    for heading in ("suite", "dose", "score", "minus", "mean of the seeds", "interval by pair"):
        table.add_column(heading, no_wrap=True)
    for row in results["confirmed"]["over_seeds"]:
        dose = f"{100 * row['dose']:g} %" if row["dose"] else "mean"
        box = f"{row['low']:.3f} to {row['high']:.3f}"
        table.add_row(row["suite"], dose, row["detector"], row["against"], f"{row['mean']:.3f}", box)
    console.print(table)
