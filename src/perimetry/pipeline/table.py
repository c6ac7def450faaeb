"""Results as a person would like to see them in a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["show_rows", "show_sweep", "show_verdicts"]

MARKS = {"good": "[green]holds[/]  ", "bad": "[bold red]fails[/]  ", "open": "[yellow]open[/]   "}
PLAIN = "       "


def _column(row: Mapping[str, Any], *, dial: bool) -> str:
    if dial:
        return f"{100 * row['dose']:g} %"
    return row["family"] if row["negatives"] == "all" else f"{row['family']} vs {row['negatives']}"


def show_rows(results: Mapping[str, Any], console: Console | None = None) -> None:
    """One table a suite: a row a detector, a column a dose or a family, AUROC with its interval, for the first seed.

    Of the poolings only plain means and the main detector are shown; the report and `results.json` have all.
    """
    console = console or Console(width=None if Console().is_terminal else 160)
    rows = [r for r in results["rows"] if r["metric"] == "auroc"]
    first = min((r["seed"] for r in rows), default=0)
    main = results.get("main", "")
    for suite in dict.fromkeys(r["suite"] for r in rows):
        mine = [r for r in rows if r["suite"] == suite and r["seed"] == first]
        dial = any(r["dose"] not in (0.0, 1.0) for r in mine)
        mine = [r for r in mine if dial or r["family"] == "all" or r["negatives"] == "all"]
        cells = {(r["detector"], _column(r, dial=dial)): r for r in mine}
        columns = list(dict.fromkeys(c for _, c in cells))
        table = Table(title=f"{suite}: AUROC [95 % interval], SAE seed {first}", title_justify="left")
        for heading in ("detector", "kind"):
            table.add_column(heading, no_wrap=True)
        for column in columns:
            table.add_column(column, justify="right")
        names = [n for n in dict.fromkeys(r["detector"] for r in mine) if "." not in n or n == main]
        best = {c: max(cells[n, c]["estimate"] for n in names if (n, c) in cells) for c in columns}
        for name in names:
            kind = next(r["kind"] for r in mine if r["detector"] == name)
            line = [f"[bold]{name}[/]" if name == main else name, kind]
            for column in columns:
                row = cells.get((name, column))
                text = "" if row is None else f"{row['estimate']:.3f} [dim]{row['low']:.2f}-{row['high']:.2f}[/]"
                line.append(f"[bold]{text}[/]" if row is not None and row["estimate"] == best[column] else text)
            table.add_row(*line)
        console.print(table)


def show_verdicts(results: Mapping[str, Any], console: Console | None = None) -> None:
    """The sentences that say what held and what did not, as the report has them."""
    from perimetry.report import parse_results
    from perimetry.report.verdicts import verdicts

    console = console or Console()
    for verdict in verdicts(parse_results(dict(results))):
        console.print(f"{MARKS.get(verdict.tone, PLAIN)}{verdict.text}", highlight=False)


def show_sweep(rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """A row an SAE of one run: its folder, whose name says what tells it from the others, FVU, L0, dead share, identity."""
    found = Console(stderr=True)
    console = console or (found if found.is_terminal else Console(stderr=True, width=160))
    table = Table(title=f"{len(rows)} SAEs on the same batches", title_justify="left")
    table.add_column("folder", overflow="fold")
    for heading in ("FVU", "L0", "dead", "sha256"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        measures = (f"{row['fvu']:.4f}", f"{row['l0']:.1f}", f"{100 * row['dead']:.1f} %", row["digest"][:16])
        table.add_row(escape(row["path"]), *measures)
    console.print(table)
