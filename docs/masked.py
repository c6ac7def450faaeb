"""The views of a masking study; make_results.py puts them between the marks."""

from collections.abc import Callable
from typing import Any

from measured import whole_file
from performance import source, table

from perimetry.report.masking import SHOWN, masking_charts, masking_verdicts, over_seeds
from perimetry.report.schema_masking import MaskingResultRow, MaskingResults, parse_masking

__all__ = ["VIEWS", "charts", "signs", "taken"]

TONES = {"good": "**seen:** ", "bad": "**opposite:** ", "open": "**open:** "}


def taken(whole: dict[str, Any]) -> dict[str, Any]:
    """What is committed of a masking study: all of it, once it is checked."""
    parse_masking(whole)
    return whole


def _view(make: Callable[[MaskingResults], str]) -> Callable[[dict[str, Any]], str]:
    def view(whole: dict[str, Any]) -> str:
        results = parse_masking(whole)
        return "\n\n".join([make(results), f"{source(whole)} {results.subtitle}."])

    return view


def signs(results: MaskingResults) -> str:
    """Each published claim at each count."""
    return "\n".join(f"* {TONES.get(v.tone, '')}{v.text}" for v in masking_verdicts(results))


def _name(row: MaskingResultRow) -> str:
    return f"{row.evaluation} `{row.metric}`" + (f", k = {row.k}" if row.k else "")


def _box(row: MaskingResultRow, *, signed: bool) -> str:
    form = "{:+.4f}" if signed else "{:.4f}"
    return f"{form.format(row.value)} ({form.format(row.low)} to {form.format(row.high)})"


def _grid(results: MaskingResults, *, differences: bool) -> str:
    rows = [row for names in SHOWN for row in over_seeds(results, *names, differences=differences)]
    rows = [row for row in rows if row.against in ("", "none")]
    arms = list(dict.fromkeys(row.arm for row in rows))
    lines: dict[tuple[str, int], dict[str, MaskingResultRow]] = {}
    for row in rows:
        lines.setdefault((_name(row), row.l0_target), {})[row.arm] = row
    body = [
        [
            name,
            str(count),
            {True: "higher", False: "lower", None: ""}[next(iter(found.values())).higher],
            *(_box(found[arm], signed=differences) if arm in found else "" for arm in arms),
        ]
        for (name, count), found in lines.items()
    ]
    return table(["number", "L0", "better", *arms], body)


def values(results: MaskingResults) -> str:
    """Every arm, over all seeds."""
    return _grid(results, differences=False)


def differences(results: MaskingResults) -> str:
    """Every arm less the plain one, over all seeds."""
    return _grid(results, differences=True)


def over_controls(results: MaskingResults) -> str:
    """The masked arm less each control, over all seeds."""
    rows = [row for names in SHOWN for row in over_seeds(results, *names, differences=True)]
    rows = [row for row in rows if row.against not in ("", "none")]
    lines = [
        [_name(r), str(r.l0_target), r.against, _box(r, signed=True), f"{r.seeds_above} of {r.seeds}"] for r in rows
    ]
    return table(["number", "L0", "masked minus", "difference", "above 0 in seeds"], lines)


def charts(whole: dict[str, Any]) -> dict[str, str]:
    """Name of a figure -> a whole SVG file."""
    return {chart.name: whole_file(chart.picture) for chart in masking_charts(parse_masking(whole))}


VIEWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "masking-signs": _view(signs),
    "masking-values": _view(values),
    "masking-differences": _view(differences),
    "masking-over-controls": _view(over_controls),
}
"""View -> Markdown of a result file."""
