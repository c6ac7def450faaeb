"""The tables of the report."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perimetry.report.markup import Html, Node, number, tag
from perimetry.report.picking import Arm, arm_name, arms_of, dose_name, is_dial
from perimetry.report.schema import FalseAlarmRow, ResultRow, SeedRow

__all__ = [
    "detector_table",
    "difference_table",
    "false_alarm_table",
    "framed",
    "grid",
    "matching_table",
    "seed_table",
    "settings_table",
]

METRICS = {
    "auroc": "AUROC; 1 = always told apart, .5 = no use",
    "fpr_at_95_tpr": "False-alarm rate at which 95 % of the shifted prompts are caught; lower is better",
    "tpr_at_1_fpr": "Share of the shifted prompts caught at a false-alarm rate of 1 %; higher is better",
    "auroc_difference": "Difference of AUROC",
    "spearman_dose": "Mean rank correlation of score and dose within a passage; 1 = always rising",
    "rising_steps": "Share of dose steps at which the mean score rises; 1 = monotone",
}


def detector_table(
    rows: Sequence[ResultRow], suite: str, metric: str, *, main: str, only: frozenset[str] | None = None
) -> Html:
    """Every detector (or those in `only`) against every contrast of a suite; the best in bold."""
    arms = arms_of(rows, suite)
    dial = is_dial(arms)
    cells: dict[str, dict[Arm, ResultRow]] = {}
    for row in rows:
        if row.suite == suite and row.metric == metric and (only is None or row.detector in only):
            cells.setdefault(row.detector, {})[Arm(row.family, row.dose, row.negatives)] = row
    flip = -1.0 if metric == "fpr_at_95_tpr" else 1.0
    best = {arm: max((flip * own[arm].estimate for own in cells.values() if arm in own), default=0.0) for arm in arms}
    order = sorted(cells, key=lambda name: (-flip * _mean(cells[name].values()), name))
    head = tag(
        "tr",
        tag("th", "detector", scope="col"),
        tag("th", "reads", scope="col"),
        *(tag("th", arm_name(arm, dial), scope="col", class_="num") for arm in arms),
    )
    body = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            tag("td", next(iter(cells[name].values())).kind),
            *(_cell(cells[name].get(arm), flip * best[arm]) for arm in arms),
            class_="main" if name == main else None,
        )
        for name in order
    ]
    n = next((row for row in rows if row.suite == suite and row.metric == metric), None)
    said = f" Under each number its interval ({n.method}); up to {_most_pairs(rows, suite)} pairs." if n else ""
    return framed(f"{METRICS[metric]}.{said}", head, body)


def difference_table(rows: Sequence[ResultRow], suite: str) -> Html:
    """By how much the main score, and the best one after the fact, beat each baseline, on the same prompts."""
    dial = is_dial(arms_of(rows, suite))
    names = ("contrast", "concept score", "chosen", "baseline", "difference", "interval", "pairs", "verdict")
    body: list[Html] = []
    for row in rows:
        if row.suite == suite and row.metric == "auroc_difference":
            verdict = "better" if row.low > 0 else "worse" if row.high < 0 else "open"
            body.append(
                tag(
                    "tr",
                    tag("th", arm_name(Arm(row.family, row.dose, row.negatives), dial), scope="row"),
                    tag("td", row.detector),
                    tag("td", "after the fact" if row.selection == "post_hoc" else "beforehand"),
                    tag("td", row.against, " ", tag("span", "best", class_="badge") if row.best_baseline else None),
                    tag("td", number(row.estimate), class_="num"),
                    tag("td", f"{number(row.low)} to {number(row.high)}", class_="num"),
                    tag("td", row.n_pairs, class_="num"),
                    tag("td", tag("span", verdict, class_=f"badge {_tone(verdict)}")),
                )
            )
    caption = "Difference of AUROC, concept score minus baseline, resampled together by pair."
    return framed(caption, _head(names, frozenset({"difference", "interval", "pairs"})), body)


def false_alarm_table(rows: Sequence[FalseAlarmRow]) -> Html:
    """Realised false alarms beside the interval in which they should lie."""
    names = ("group", "asked for", "realised", "should lie in", "test prompts", "calibration prompts", "verdict")
    body = [
        tag(
            "tr",
            tag("th", row.group, scope="row"),
            tag("td", number(row.alpha, 2), class_="num"),
            tag("td", number(row.realised), class_="num"),
            tag("td", f"{number(row.low)} to {number(row.high)}", class_="num"),
            tag("td", row.n_test, class_="num"),
            tag("td", row.n_calibration, class_="num"),
            tag(
                "td",
                tag("span", "inside" if row.inside else "outside", class_=f"badge {'good' if row.inside else 'bad'}"),
            ),
        )
        for row in rows
    ]
    caption = "Share of clean test prompts that raised an alarm, by calibration group; beta-binomial interval, 95 % for all rows at once."
    return framed(caption, _head(names, frozenset(names[1:6])), body)


def seed_table(rows: Sequence[SeedRow], main: str) -> Html:
    """The main score and its differences over SAE seeds."""
    names = ("suite", "contrast", "measure", "seeds", "mean", "least", "greatest", "every interval above zero")
    body: list[Html] = []
    for row in rows:
        if row.seeds > 1 and row.selection != "post_hoc" and row.metric in ("auroc", "auroc_difference"):
            if row.detector != main:
                continue
            measure = f"AUROC minus {row.against}" if row.against else f"AUROC of {row.detector}"
            family = "" if row.family == "all" else f"{row.family}, "
            body.append(
                tag(
                    "tr",
                    tag("th", row.suite, scope="row"),
                    tag("td", f"{family}{dose_name(row.dose)}, against {row.negatives}"),
                    tag("td", measure),
                    *(tag("td", text, class_="num") for text in (str(row.seeds), number(row.mean), number(row.least))),
                    tag("td", number(row.greatest), class_="num"),
                    tag("td", ("yes" if row.every_interval_above_zero else "no") if row.against else "–"),
                )
            )
    return framed("The same measurements with SAEs of other seeds.", _head(names, frozenset(names[3:7])), body)


def matching_table(suite: str, matching: Mapping[str, Any]) -> Html:
    """How the negatives of a suite compare with its positives: flat facts, then one line a group."""
    lists = {k: v for k, v in matching.items() if isinstance(v, list) and v and isinstance(v[0], dict)}
    facts = settings_table(f"Matching of {suite}", {k: v for k, v in matching.items() if k not in lists})
    tables: list[Node] = [facts]
    for name, entries in lists.items():
        keys = list(dict.fromkeys(key for entry in entries for key in entry))
        body = [
            tag(
                "tr",
                *(
                    tag("td", _plain(entry.get(key)), class_="num" if _is_number(entry.get(key)) else None)
                    for key in keys
                ),
            )
            for entry in entries
        ]
        tables.append(
            framed(f"Matching of {suite}: {name}", _head([k.replace("_", " ") for k in keys], frozenset()), body)
        )
    return tag("div", *tables)


def settings_table(caption: str, values: Mapping[str, Any]) -> Html:
    """Nested settings, one a line."""
    body = [tag("tr", tag("th", key, scope="row"), tag("td", _plain(value))) for key, value in _flat(values)]
    return framed(caption, None, body)


def _cell(row: ResultRow | None, best: float) -> Html:
    if row is None:
        return tag("td", "–", class_="num")
    shade = row.estimate if row.metric != "fpr_at_95_tpr" else 1 - row.estimate
    strength = min(max((shade - 0.5) * 2 if row.metric == "auroc" else shade, 0.0), 1.0)
    value = tag("strong" if row.estimate == best else "span", number(row.estimate))
    small = tag("small", f"{number(row.low)}–{number(row.high)}")
    return tag("td", value, small, class_="num cell", style=f"--s:{strength:.2f}", data_value=f"{row.estimate:.6f}")


def grid(caption: str, names: Sequence[str], words: int, rows: Iterable[Sequence[Node]]) -> Html:
    """Rows of cells as a framed table; the first `words` columns hold words, the others numbers."""

    def shade(place: int) -> str | None:
        return None if place < words else "num"

    head = tag("tr", *(tag("th", name, scope="col", class_=shade(i)) for i, name in enumerate(names)))
    body = [tag("tr", *(tag("td", cell, class_=shade(i)) for i, cell in enumerate(row))) for row in rows]
    return framed(caption, head, body)


def framed(caption: str, head: Html | None, body: Sequence[Html]) -> Html:
    """Rows as a table with its caption, in a frame that scrolls sideways."""
    content = tag("table", tag("caption", caption), tag("thead", head) if head else None, tag("tbody", *body))
    return tag("div", content, class_="scroll", tabindex="0")


def _head(names: Sequence[str], numeric: frozenset[str]) -> Html:
    return tag("tr", *(tag("th", name, scope="col", class_="num" if name in numeric else None) for name in names))


def _tone(verdict: str) -> str:
    return {"better": "good", "worse": "bad"}.get(verdict, "open")


def _mean(rows: Any) -> float:
    values = [row.estimate for row in rows]
    return sum(values) / len(values)


def _most_pairs(rows: Sequence[ResultRow], suite: str) -> int:
    return max(row.n_pairs for row in rows if row.suite == suite)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found
