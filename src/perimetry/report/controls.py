"""The controls of a sceptic: what was expected, what came out, and whether it holds, those that fail shown like the others."""

from collections.abc import Sequence

from perimetry.report.markup import Html, Node, join, number, tag
from perimetry.report.measures import more
from perimetry.report.picking import dose_name
from perimetry.report.schema import Results
from perimetry.report.schema_controls import ControlRow

__all__ = ["NAMES", "controls_section"]

NAMES = {
    "f2_predicts_f3": "False concepts (F2) against the oracle with a clean twin (F3)",
    "same_table": "Controls that stand in every table",
    "untrained_sae": "An SAE that learned nothing",
    "permuted_decoder": "A decoder whose directions were dealt out anew",
    "untrained_model": "A language model that learned nothing",
    "clean_against_clean": "Clean text against clean text",
    "shuffled_labels": "Labels by a coin",
    "p_values": "p-values of held-out clean prompts are uniform",
    "simulated_p_values": "p-values of simulated exchangeable scores are uniform",
}
"""Headings of the controls, in their order; one that is not named here comes last, under its own name."""
VERDICTS = {True: "badge good", False: "badge bad"}
NOTE = (
    "A meter that counts what a model has learned must lose what was learned; where nothing is to be found, it must find "
    "nothing. Each line says what such a meter gives, and whether this one does."
)


def controls_section(results: Results) -> Html:
    """How many hold, then a table a control; numbers of which nothing is expected are folded away."""
    rows = results.controls
    judged = [row for row in rows if row.holds is not None]
    if not judged:
        return join([])
    kept = sum(bool(row.holds) for row in judged)
    count = f"{kept} of {len(judged)} controls hold, {len(judged) - kept} fail."
    parts: list[Node] = [tag("p", tag("strong", count)), tag("p", NOTE, class_="muted")]
    found = dict.fromkeys(row.control for row in rows)
    for control in [*(name for name in NAMES if name in found), *(name for name in found if name not in NAMES)]:
        own = [row for row in rows if row.control == control]
        asked = [row for row in own if row.holds is not None]
        beside = [row for row in own if row.holds is None]
        parts.append(tag("h3", NAMES.get(control, control)))
        if asked:
            parts.append(_table(asked, "Interval beside each number; what chance allows where that is expected."))
        if beside:
            parts.append(more("Numbers that stand beside", _table(beside, "Nothing is expected of these.")))
    return join(parts)


def _table(rows: Sequence[ControlRow], caption: str) -> Html:
    names = ("score", "against", "dose", "measure", "value", "interval", "n", "expected", "verdict", "how")
    head = tag("tr", *(tag("th", name, scope="col") for name in names))
    return tag(
        "div",
        tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *map(_line, rows))),
        class_="scroll",
        tabindex="0",
    )


def _line(row: ControlRow) -> Html:
    badge = None if row.holds is None else tag("span", "holds" if row.holds else "fails", class_=VERDICTS[row.holds])
    return tag(
        "tr",
        tag("th", row.detector, scope="row"),
        tag("td", row.against or "–"),
        tag("td", dose_name(row.dose) if row.dose else "–"),
        tag("td", row.metric.replace("_", " ")),
        tag("td", number(row.estimate), class_="num"),
        tag("td", f"{number(row.low)} to {number(row.high)}", class_="num"),
        tag("td", row.n, class_="num"),
        tag("td", row.expected or "–"),
        tag("td", badge or "–"),
        tag("td", row.method),
    )
