"""Tables of what is measured beyond a single area: doses, choices made elsewhere, value added to the baselines."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from perimetry.report.markup import Html, Node, number, tag
from perimetry.report.picking import Arm, arm_name, arms_of, is_dial
from perimetry.report.schema import Meaning, ResultRow

__all__ = ["ALARMS", "interval_table", "meanings", "measure_tables", "more"]

ALARMS = {"alarm_rate_at_1": "alarms at 1 %", "alarm_rate_at_5": "alarms at 5 %"}


class _Table(NamedTuple):
    label: str
    caption: str
    names: dict[str, str]


TABLES = (
    _Table(
        "Score against dose",
        "Within each passage: does the score follow the dose? 1 = always.",
        {"spearman_dose": "rank correlation with dose", "rising_steps": "share of rising steps"},
    ),
    _Table(
        "Best baseline chosen on other pairs",
        "Difference of AUROC to the best baseline, which was chosen on the other folds of the pairs; the best concept score, "
        "where it stands, was chosen there as well.",
        {"auroc_difference_out_of_fold": "AUROC minus that of the best baseline"},
    ),
    _Table(
        "Each family left out",
        "Score and threshold chosen on the other families, at 5 % false alarms there; measured on the family left out.",
        {
            "auroc_left_out": "AUROC",
            "auroc_left_out_difference": "AUROC, best concept minus best baseline",
            "tpr_left_out": "share caught",
            "fpr_left_out": "false alarms",
        },
    ),
    _Table(
        "What the main score adds to the baselines",
        "Cross-validated logistic fits on the baselines with and without the main score; above 0 = it adds something.",
        {"added_log_loss": "log-loss saved, nats a text", "added_auroc": "AUROC gained"},
    ),
)


def more(label: str, content: Html) -> Html:
    """Folded away under a label."""
    return tag("details", tag("summary", label), content)


def interval_table(
    rows: Sequence[ResultRow], caption: str, names: dict[str, str], place: Callable[[ResultRow], str]
) -> Html:
    """Rows with their intervals, one a line; `names` says what each metric is called and gives the order."""
    order = list(names)
    headings = ("score", "where", "measure", "value", "interval", "pairs", "how")
    head = tag("tr", *(tag("th", heading, scope="col") for heading in headings))
    body = [
        tag(
            "tr",
            tag("th", row.detector, scope="row"),
            tag("td", place(row)),
            tag("td", names[row.metric]),
            tag("td", number(row.estimate), class_="num"),
            tag("td", f"{number(row.low)} to {number(row.high)}", class_="num"),
            tag("td", row.n_pairs, class_="num"),
            tag("td", row.method),
        )
        for row in sorted(rows, key=lambda row: (order.index(row.metric), place(row), -row.estimate, row.detector))
    ]
    table = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("div", table, class_="scroll", tabindex="0")


def measure_tables(rows: Sequence[ResultRow], suite: str) -> list[Node]:
    """All of `TABLES` that a suite has rows for, folded away."""
    dial = is_dial(arms_of(rows, suite))

    def place(row: ResultRow) -> str:
        if row.dose == 0:
            return row.family
        return arm_name(Arm(row.family, row.dose, row.negatives), dial)

    found: list[Node] = []
    for table in TABLES:
        own = [row for row in rows if row.suite == suite and row.metric in table.names]
        if own:
            found.append(more(f"{table.label} in {suite}", interval_table(own, table.caption, table.names, place)))
    return found


def meanings(metrics: Mapping[str, Meaning]) -> Html:
    """What each number means, its unit and which way is better."""
    better = {True: "higher is better", False: "lower is better", None: "neither way is better"}
    items: list[Node] = []
    for name, about in metrics.items():
        text = about.text if about.text.endswith(".") else f"{about.text}."
        items += [
            tag("dt", name.replace("_", " ")),
            tag("dd", f"{text} Unit: {about.unit}; {better[about.higher]}."),
        ]
    return tag("dl", *items)
