"""The section on other layers: how the main score and its rivals do there, suite by suite."""

from collections.abc import Iterable

from perimetry.report.markup import Html, Node, join, number, tag
from perimetry.report.picking import Arm, arms_of, dose_name, headline_arm, is_dial
from perimetry.report.schema import LayerRow, Results

__all__ = ["LayerLine", "layer_lines", "layer_section"]

GAIN = "auroc_difference_out_of_fold"
RIVAL = "mahalanobis"
"""Baseline of the same activations that has a column of its own."""


class LayerLine:
    """What the meters of one layer say of one suite, at the contrast of its headline."""

    def __init__(self, suite: str, place: str, layer: int, rows: Iterable[LayerRow], main: str) -> None:
        self.suite, self.place, self.layer = suite, place, layer
        mine = list(rows)
        self.areas = [r for r in mine if (r.metric, r.detector) == ("auroc", main)]
        self.rivals = [r for r in mine if (r.metric, r.detector) == ("auroc", RIVAL)]
        self.gains = [r for r in mine if r.metric == GAIN]
        concepts = [r for r in mine if r.metric == "auroc" and r.kind == "concept"]
        self.best = max(concepts, key=lambda r: (r.estimate, r.detector), default=None)


def layer_lines(results: Results) -> list[LayerLine]:
    """A line for each suite and layer, layers rising."""
    found: list[LayerLine] = []
    for suite in dict.fromkeys(row.suite for row in results.layers):
        rows = [row for row in results.layers if row.suite == suite]
        arms = arms_of(rows, suite)
        if not arms:
            continue
        arm = headline_arm(arms)
        here = [row for row in rows if Arm(row.family, row.dose, row.negatives) == arm]
        place = dose_name(arm.dose) if is_dial(arms) else arm.family
        for layer in sorted({row.layer for row in here}):
            found.append(LayerLine(suite, place, layer, (r for r in here if r.layer == layer), results.main))
    return found


def layer_section(results: Results) -> Html:
    """A table of suites by layers; nothing where all meters read the same one."""
    lines = layer_lines(results)
    if not lines:
        return join([])
    names = (
        "suite",
        "contrast",
        "layer",
        "SAEs",
        results.main,
        "best concept score after the fact",
        RIVAL,
        "minus the best baseline",
    )
    head = tag(
        "tr", *(tag("th", name, scope="col", class_="num" if i > 3 or i == 2 else None) for i, name in enumerate(names))
    )
    body = [
        tag(
            "tr",
            tag("th", line.suite, scope="row"),
            tag("td", line.place),
            tag("td", line.layer, class_="num"),
            tag("td", len(line.areas)),
            _cell(line.areas),
            tag("td", f"{line.best.detector} ", number(line.best.estimate), class_="num")
            if line.best
            else tag("td", "–"),
            _cell(line.rivals[:1]),
            _cell(line.gains, signed=True),
        )
        for line in lines
    ]
    caption = (
        "The same texts read after other blocks, from the same run of the model. AUROC with its interval by pair where a layer has one "
        "SAE, else the range over the SAEs; the baseline of the last column is chosen on other folds of the pairs, from those of that layer."
    )
    table = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("div", table, class_="scroll", tabindex="0")


def _cell(rows: list[LayerRow], *, signed: bool = False) -> Html:
    """One row with its interval, or the range of several."""
    if not rows:
        return tag("td", "–", class_="num")
    values = [row.estimate for row in rows]
    ends = (rows[0].low, rows[0].high) if len(rows) == 1 else (min(values), max(values))
    mean = sum(values) / len(values)
    parts: list[Node] = [
        f"{mean:+.3f}" if signed else number(mean),
        tag("small", f" {number(ends[0])} to {number(ends[1])}"),
    ]
    return tag("td", *parts, class_="num")
