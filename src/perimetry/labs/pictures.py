"""The figures of a lab as PNG files, each with its data beside it."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perimetry.errors import UsageError
from perimetry.labs.base import Panel
from perimetry.storage import write_bytes

__all__ = ["keep_panels"]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Told apart by people who do not see all colours (Okabe and Ito)."""
DASHES = ("-", "--", "-.", ":")


def keep_panels(panels: Sequence[Panel], folder: Path) -> list[Path]:
    """Write `NAME.png` and `NAME.csv` for each figure, and return the pictures. Errors: `UsageError` without matplotlib."""
    try:
        from matplotlib.figure import Figure  # late and optional
    except ImportError as error:
        raise UsageError("the figures of labs want matplotlib; pip install 'perimetry[report]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    for panel in panels:
        figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
        _draw(panel, figure.add_subplot())
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
        write_bytes(folder / f"{panel.name}.csv", _table(panel).encode())
        write_bytes(folder / f"{panel.name}.png", picture.getvalue())
        made.append(folder / f"{panel.name}.png")
    return made


def _draw(panel: Panel, axes: Any) -> None:
    for number, line in enumerate(panel.lines):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
        marker = "o" if len(line.xs) <= 24 else None
        axes.plot(line.xs, line.ys, dash, color=colour, marker=marker, markersize=4, label=line.name)
        if line.lows and line.highs:
            axes.fill_between(line.xs, line.lows, line.highs, color=colour, alpha=0.15, linewidth=0)
    if panel.level is not None:
        axes.axhline(panel.level, color="#666666", linewidth=0.8, linestyle=":")
    axes.set_xscale("log" if panel.log_x else "linear")
    axes.set_yscale("log" if panel.log_y else "linear")
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    axes.set_title(panel.title, fontsize=10)
    if len(panel.lines) > 1:
        axes.legend(fontsize=8, frameon=False)


def _table(panel: Panel) -> str:
    """One row a point."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["line", "x", "y", "low", "high"])
    for line in panel.lines:
        for i, (x, y) in enumerate(zip(line.xs, line.ys, strict=True)):
            writer.writerow([line.name, x, y, line.lows[i] if line.lows else "", line.highs[i] if line.highs else ""])
    return text.getvalue()
