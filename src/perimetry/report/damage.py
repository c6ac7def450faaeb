"""Damage to the model beside the scores: how much there is, which scores follow it, and both in one figure."""

from collections.abc import Sequence

from perimetry.report.curves import figure
from perimetry.report.figures import Axis, scatter
from perimetry.report.markup import Html, Node, join, number, tag
from perimetry.report.measures import interval_table, more
from perimetry.report.picking import dose_name, first_seed
from perimetry.report.schema import DamageEntry, DamagePoints, ResultRow, Results

__all__ = ["damage_section"]

MEASURES = {
    "kl": "KL of the next-token distributions, nats",
    "nll_rise": "rise of the NLL of clean words that follow, nats",
    "accuracy_clean": "accuracy on clean questions",
    "accuracy_corrupted": "accuracy on corrupted questions",
    "accuracy_loss": "accuracy lost",
}
RANKS = {
    "damage_kl_spearman": "rank correlation with KL",
    "damage_kl_spearman_difference": "rank correlation with KL, main score minus best baseline",
    "damage_nll_rise_spearman": "rank correlation with the rise of NLL",
    "damage_nll_rise_spearman_difference": "rank correlation with the rise of NLL, main score minus best baseline",
}


def _place(row: ResultRow) -> str:
    where = f"{row.suite}, {row.family}" if row.family not in ("all", row.suite) else row.suite
    return f"{where}, {dose_name(row.dose)}" if row.dose else f"{where}, all doses"


def damage_section(results: Results) -> Html:
    """Mean damage, figures of damage against score, rank correlations."""
    rows = [row for row in first_seed(results.rows) if row.metric in RANKS]
    parts: list[Node] = []
    if results.damage:
        parts.append(_table(results.damage))
    figures = [_figure(points) for points in results.damage_points if points.score]
    if figures:
        parts.append(tag("div", *figures, class_="figures"))
    if rows:
        caption = "Does the score rank corrupted texts as the damage to the model does? 1 = the same order."
        main = [row for row in rows if row.detector == results.main]
        parts.append(interval_table(main, f"{results.main}: {caption}", RANKS, _place))
        parts.append(more("Every detector and baseline against damage", interval_table(rows, caption, RANKS, _place)))
    return join(parts)


def _table(entries: Sequence[DamageEntry]) -> Html:
    names = ("suite", "kind", "dose", "measure", "value", "interval", "pairs", "chance")
    head = tag("tr", *(tag("th", name, scope="col") for name in names))
    body = [
        tag(
            "tr",
            tag("th", entry.suite, scope="row"),
            tag("td", entry.family),
            tag("td", dose_name(entry.dose)),
            tag("td", MEASURES.get(entry.measure, entry.measure)),
            tag("td", number(entry.estimate), class_="num"),
            tag("td", f"{number(entry.low)} to {number(entry.high)}", class_="num"),
            tag("td", entry.n_pairs, class_="num"),
            tag("td", "–" if entry.chance is None else number(entry.chance), class_="num"),
        )
        for entry in entries
    ]
    caption = "What the corruption does to the model itself, measured without any score."
    table = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("div", table, class_="scroll", tabindex="0")


def _figure(points: DamagePoints) -> Html:
    doses = sorted(set(points.dose))
    title = f"{points.suite}: damage against {points.detector}"
    x, y = _axis(points.detector, points.score), _axis("KL, nats", (0.0, *points.kl))
    groups = {
        dose_name(dose): [(s, k) for d, s, k in zip(points.dose, points.score, points.kl, strict=True) if d == dose]
        for dose in doses
    }
    role = "a concept score" if points.kind == "concept" else "the baseline that follows it best"
    return figure(scatter(groups, x, y, title=title), f"{title}, {role}. One mark a corrupted text.")


def _axis(label: str, values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    high = high if high > low else low + 1.0
    return Axis(
        label, low, high, tuple((low + (high - low) * i / 4, f"{low + (high - low) * i / 4:.3g}") for i in range(5))
    )
