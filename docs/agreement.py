"""Views of what was compared with other libraries' evaluations; make_results.py puts them between the marks."""

from collections.abc import Callable
from typing import Any

from performance import source, table

__all__ = ["VIEWS"]

Row = dict[str, Any]


def _signed(row: Row, digits: int = 4) -> str:
    return f"{row['estimate']:+.{digits}f} ({row['low']:+.{digits}f} to {row['high']:+.{digits}f})"


def _k(row: Row) -> str:
    return str(row["k"]) if row["k"] else "all"


def speed(measured: dict[str, Any]) -> str:
    """How much faster the probes are, and how far from others' they are."""
    rows = measured["rows"]
    other = next(row["arm"] for row in rows if row["metric"] == "time_ratio")
    lines: list[list[str]] = []
    for one in [row for row in rows if row["metric"] == "time_ratio"]:
        mine = [row for row in rows if row["k"] == one["k"]]
        seconds = {row["arm"]: row["estimate"] for row in mine if row["metric"] == "seconds"}
        gaps = {row["against"]: _signed(row) for row in mine if row["metric"] == "auroc_difference"}
        times = [f"{seconds[other]:.1f}", f"{seconds['perimetry']:.2f}", f"{one['estimate']:.1f}"]
        lines.append([_k(one), str(one["cells"]), *times, gaps["scikit-learn"], gaps[other]])
    head = ["latents", "cells", f"{other}, s", "perimetry, s", "times faster"]
    head += ["AUC less scikit-learn's at the same C", f"AUC less that of {other}"]
    about = f"Sets: {', '.join(f'`{name}`' for name in measured['sets'])}."
    return "\n\n".join([table(head, lines), about, source(measured)])


def draws(measured: dict[str, Any]) -> str:
    """Ours less theirs where each draws its own rows, beside the noise of such draws."""
    lines = [
        [
            "mean of the sets" if row["set"] == "all" else f"`{row['set']}`",
            str(row["k"]),
            f"{row['theirs']:.4f}",
            f"{row['ours']:.4f}",
            _signed(row),
            f"{row['reseed']:.4f}",
            "yes" if row["agree"] else "no",
        ]
        for row in measured["rows"]
    ]
    head = ["set", "latents", "sae-probes", "perimetry", "difference", "between its draws", "within the noise"]
    return "\n\n".join([table(head, lines), source(measured)])


def fidelity(measured: dict[str, Any]) -> str:
    """Number by number on the same tokens."""
    lines = [
        [
            f"`{r['metric']}`, {r['arm']}",
            r["against"],
            f"{r['theirs']:.6g}",
            f"{r['ours']:.6g}",
            f"{r['estimate']:+.1e}",
        ]
        for r in measured["rows"]
    ]
    return "\n\n".join([table(["number", "there", "theirs", "ours", "difference"], lines), source(measured)])


VIEWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "probing-speed": speed,
    "probing-draws": draws,
    "fidelity-agreement": fidelity,
}
"""View -> Markdown of a result file."""
