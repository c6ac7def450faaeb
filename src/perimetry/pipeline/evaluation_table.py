"""What was measured of dictionaries, as a person would like to see it in a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from perimetry.evals.sae import HEADLINES

__all__ = ["show_evaluation"]


def show_evaluation(results: Mapping[str, Any], console: Console | None = None) -> None:
    """A row a headline number, a column a dictionary or control, with intervals; then what was refused."""
    console = console or Console(width=None if Console().is_terminal else 160)
    rows = [r for r in results["rows"] if not r["against"] and not r["case"] and r["arm"] in ("sae", "raw")]
    rows = [r for r in rows if r["metric"] in HEADLINES.get(r["evaluation"], ())]
    columns = list(dict.fromkeys((r["sae"], r["control"]) for r in rows))
    table = Table(title="estimate [95 % interval]", title_justify="left")
    table.add_column("evaluation", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    for sae, control in columns:
        table.add_column(escape(f"{sae}, {control.replace('_', ' ')}" if control else sae), justify="right")
    for line in dict.fromkeys((r["evaluation"], r["metric"], r["k"], r["arm"]) for r in rows):
        mine = {(r["sae"], r["control"]): r for r in rows if (r["evaluation"], r["metric"], r["k"], r["arm"]) == line}
        what = line[1] + (f", k = {line[2]}" if line[2] else "") + (", raw activations" if line[3] == "raw" else "")
        cells = [
            f"{r['estimate']:.3f} [dim]{r['low']:.3f} to {r['high']:.3f}[/]" if (r := mine.get(column)) else ""
            for column in columns
        ]
        table.add_row(line[0], what, *cells)
    console.print(table)
    for about in results["evaluations"]:
        if about["caveat"] and about["name"] in {r["evaluation"] for r in rows}:
            console.print(f"{about['name']}: {about['caveat']}", style="dim", highlight=False, markup=False)
    for one in results["refused"]:
        who = f"{one['sae']}{', ' + one['control'].replace('_', ' ') if one['control'] else ''}"
        what = one["evaluation"] or "control"
        console.print(f"not judged: {what} of {who}: {one['why']}", style="yellow", highlight=False, markup=False)
