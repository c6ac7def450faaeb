"""The curves of the report: AUROC over doses, and the share caught at few false alarms."""

import math
from collections.abc import Mapping, Sequence

from perimetry.report.figures import Axis, Series, line_chart
from perimetry.report.markup import Html, join, number, tag
from perimetry.report.picking import arms_of, best_baseline, dose_name, first_seed, is_dial, named_baselines
from perimetry.report.schema import ResultRow, Results, RocCurve

__all__ = ["dose_figures", "figure", "roc_figures"]

SHARES = tuple((i / 10, number(i / 10, 1)) for i in range(4, 11))
LEAST_RATE = 0.001
"""Left end of the axis of false alarms."""
MOST_LINES = 6


def _slots(results: Results) -> dict[str, int]:
    """One slot of the palette for each detector that a figure may show: the main score first, then the baselines."""
    best = [best_baseline(results.rows, suite) for suite in dict.fromkeys(row.suite for row in results.rows)]
    names = [results.main, *named_baselines(results), *best, *(curve.detector for curve in results.roc)]
    return {name: slot for slot, name in enumerate(dict.fromkeys(filter(None, names)))}


def figure(picture: Html, caption: str) -> Html:
    """A picture and what stands under it."""
    return tag("figure", picture, tag("figcaption", caption))


def dose_figures(results: Results) -> Html:
    """AUROC with its interval by dose, one figure for each kind of shift of a dial suite."""
    rows, slots = first_seed(results.rows), _slots(results)
    figures: list[Html] = []
    for suite in dict.fromkeys(row.suite for row in rows):
        arms = arms_of(rows, suite)
        if not is_dial(arms):
            continue
        shown = [results.main, *named_baselines(results), best_baseline(rows, suite)]
        for family in dict.fromkeys(arm.family for arm in arms if arm.negatives == "all"):
            own = [r for r in rows if r.suite == suite and r.family == family and r.negatives == "all"]
            figures.append(_dose_figure(own, suite, family, {n: slots[n] for n in shown if n}))
    return tag("div", *figures, class_="figures") if figures else join([])


def _dose_figure(rows: Sequence[ResultRow], suite: str, family: str, slots: Mapping[str, int]) -> Html:
    areas = [row for row in rows if row.metric == "auroc"]
    doses = sorted({row.dose for row in areas})
    place = {dose: float(i) for i, dose in enumerate(doses)}
    lines: list[Series] = []
    for name, slot in slots.items():
        own = sorted((row for row in areas if row.detector == name), key=lambda row: row.dose)
        if own:
            columns = [(place[r.dose], r.estimate, r.low, r.high) for r in own]
            lines.append(Series(name, *(tuple(column) for column in zip(*columns, strict=True)), slot=slot))
    floor = 0.4 if min((min(line.lows) for line in lines), default=0.5) >= 0.4 else 0.0
    ticks = SHARES if floor else tuple((i / 5, number(i / 5, 1)) for i in range(6))
    label = f"{suite}: AUROC by dose" + ("" if family in ("all", suite) else f", {family}")
    x = Axis("dose", -0.15, len(doses) - 0.85, tuple((place[dose], dose_name(dose)) for dose in doses))
    chart = line_chart(lines, x, Axis("AUROC", floor, 1.0, ticks), title=label, level=0.5)
    return figure(chart, f"{label}. Bands: 95 % bootstrap by pair. Dotted: no use (.5).")


def roc_figures(results: Results) -> Html:
    """Share caught over the false-alarm rate, on a logarithmic axis, for all kinds of shift together."""
    slots = _slots(results)
    groups: dict[tuple[str, str, float], list[RocCurve]] = {}
    for curve in results.roc:
        groups.setdefault((curve.suite, curve.family, curve.dose), []).append(curve)
    figures: list[Html] = []
    for (suite, family, dose), curves in groups.items():
        arms = arms_of(results.rows, suite)
        if family != "all" and len({arm.family for arm in arms}) > 1:
            continue
        place = f"{suite}, {dose_name(dose)}" if is_dial(arms) else suite
        n = max((r.n_clean for r in results.rows if (r.suite, r.family, r.dose) == (suite, family, dose)), default=0)
        figures.append(_roc_figure(curves[:MOST_LINES], slots, place, n))
    return tag("div", *figures, class_="figures") if figures else join([])


def _roc_figure(curves: Sequence[RocCurve], slots: Mapping[str, int], place: str, clean: int) -> Html:
    lines: list[Series] = []
    for curve in curves:
        points = [(math.log10(x), y) for x, y in zip(curve.fpr, curve.tpr, strict=True) if x >= LEAST_RATE]
        if points:
            xs, ys = zip(*points, strict=True)
            lines.append(Series(curve.detector, tuple(xs), tuple(ys), slot=slots[curve.detector]))
    right = max((line.xs[-1] for line in lines), default=0.0)
    ticks = tuple((float(e), f"{100 * 10.0**e:g} %") for e in range(-3, 1) if e <= right + 1e-9)
    x = Axis("false-alarm rate", math.log10(LEAST_RATE), max(right, -2.0), ticks)
    y = Axis("share caught", 0.0, 1.0, tuple((i / 5, number(i / 5, 1)) for i in range(6)))
    fewest = (
        f" One false alarm among {clean} clean texts is {100 / clean:.2g} %: left of it nothing changes."
        if clean
        else ""
    )
    return figure(line_chart(lines, x, y, title=f"Share caught, {place}"), f"{place}.{fewest}")
