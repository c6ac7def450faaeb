"""The views of a lab: what was to come out and what did, with one picture; make_results.py puts them between the marks."""

from collections.abc import Callable
from typing import Any

from measured import whole_file
from performance import source

from perimetry.report.lab import POINTS, lab_chart, lab_verdicts
from perimetry.report.schema_lab import LabResults, parse_lab

__all__ = ["VIEWS", "charts", "gallery", "meter", "taken"]

TONES = {"good": "holds", "bad": "**fails**", "open": "not judged"}


def _few(values: list[float]) -> list[float]:
    if len(values) <= POINTS:
        return values
    kept = sorted({round(i * (len(values) - 1) / (POINTS - 1)) for i in range(POINTS)})
    return [values[i] for i in kept]


def taken(whole: dict[str, Any]) -> dict[str, Any]:
    """What is committed of a lab: all of it once it is checked, lines with no more points than a picture shows."""
    parse_lab(whole)
    panels = [
        panel
        | {"lines": [{k: v if k == "name" else _few(list(v)) for k, v in line.items()} for line in panel["lines"]]}
        for panel in whole["panels"]
    ]
    return whole | {"panels": panels}


def _name(results: LabResults) -> str:
    return f"lab-{results.lab}"


def gallery(whole: dict[str, Any]) -> str:
    """The picture that stands for the lab, how many expectations hold, each that fails, the others folded, and what made the numbers."""
    results = parse_lab(whole)
    decide = [one for one in results.claims if one.decides]
    hold = sum(one.verdict == "holds" for one in decide)
    controls = [one for one in decide if one.control]
    parts: list[str] = []
    if results.panels:
        front = results.panels[0]
        parts += [f"![{front.title}](figures/{_name(results)}.svg)", f"*{front.title}.* {front.caption}".strip()]
    parts.append(
        f"{hold} of {len(decide)} expectations hold, {sum(one.verdict == 'holds' for one in controls)} of {len(controls)} controls among them."
    )
    verdicts = lab_verdicts(results)
    lines = [f"* {TONES[v.tone]}: {v.text}" for v in sorted(verdicts, key=lambda v: v.tone == "good")]
    bad = sum(v.tone != "good" for v in verdicts)
    if bad:
        parts.append("\n".join(lines[:bad]))
    parts.append(_folded(f"What holds ({len(lines) - bad})", lines[bad:]))
    return "\n\n".join([*parts, source(whole)])


def _folded(title: str, lines: list[str]) -> str:
    """Lines that open on a click."""
    return "\n".join(["<details>", f"<summary>{title}</summary>", "", *lines, "", "</details>"])


def meter(whole: dict[str, Any]) -> str:
    """What the shift meter was asked, and what each score says: a table a question."""
    parts: list[str] = []
    for one in parse_lab(whole).asked:
        head = ["score", "reads", *one.columns]
        lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        for row in one.scores:
            cells = ["–" if c is None else f"{c[0]:.2f} ({c[1]:.2f} to {c[2]:.2f})" for c in row.cells]
            lines.append(f"| {' | '.join([row.score, 'concepts' if row.concepts else 'no concept', *cells])} |")
        parts.append(f"**{one.question}** {one.unit}\n\n" + "\n".join(lines))
    return "\n\n".join([*parts, source(whole)])


def charts(whole: dict[str, Any]) -> dict[str, str]:
    """Name of a figure -> a whole SVG file."""
    results = parse_lab(whole)
    return {_name(results): whole_file(lab_chart(results.panels[0]))} if results.panels else {}


VIEWS: dict[str, Callable[[dict[str, Any]], str]] = {"gallery": gallery, "meter": meter}
"""View -> Markdown of a result file."""
