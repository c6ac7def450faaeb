"""Views of the result file of `perimetry bench shift --suite all`; make_results.py puts them between the marks.

The main score was named before, the baseline of a difference is chosen on other folds of the pairs, so that neither had a
second look at the texts it is measured on.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from performance import source, table

from perimetry.report.figures import Axis, Series, line_chart
from perimetry.report.markup import Html, number
from perimetry.report.picking import Arm, arms_of, dose_name, first_seed, headline_arm, is_apart, is_dial
from perimetry.report.schema import DamageEntry, ResultRow, Results, parse_results

__all__ = ["FIGURES", "VIEWS", "dose_curves", "kept_rows", "kept_seeds", "whole_file"]

SHOWN = ("nll", "entropy", "mahalanobis", "knn", "tokens_per_word", "recon_error")
"""Baselines that have a column or a line of their own."""
RARE = ("nll_cusum", "mahalanobis")
"""What the share caught at 1 % false alarms is compared with."""
TARGETS = {0.05: 0.75, 0.1: 0.88, 0.2: 0.97}
"""Dose of typing errors -> AUROC that was aimed at."""
STYLE = """text{font:12px system-ui,sans-serif;fill:#1a1f26}.tick,.axis,.muted{fill:#57606a}.grid{stroke:#d5dbe1}
.level{stroke:#57606a;stroke-dasharray:2 4}.line{fill:none;stroke-width:2.1;stroke:var(--c)}.band{fill:var(--c);opacity:.13}.mark *{fill:var(--c)}
.leader{stroke:var(--c);opacity:.5}.series .name{fill:var(--c);font-weight:600}
.c0{--c:#0072b2}.c1{--c:#c2500a}.c2{--c:#00805d}.c3{--c:#8f4a8b}.c4{--c:#8a6500}.c5{--c:#4b5563}"""


def kept_rows(rows: Iterable[dict[str, Any]], main: str) -> list[dict[str, Any]]:
    """What is committed of the rows: those of the lowest SAE seed.

    Of every detector in its plain pooling the AUROCs and the rank correlations; further measurements of those that the pages name.
    """
    found = list(rows)
    seed, named = min(row["seed"] for row in found), {main, *SHOWN, *RARE}

    def wanted(row: dict[str, Any]) -> bool:
        if row["seed"] != seed:
            return False
        if row["metric"] in ("auroc", "spearman_dose") or row["metric"].startswith("damage_"):
            return "." not in row["detector"] or row["detector"] == main
        return row["detector"] in named or row["selection"] in ("main", "out_of_fold", "left_out")

    return [_rounded(row) for row in found if wanted(row)]


def kept_seeds(rows: Iterable[dict[str, Any]], main: str) -> list[dict[str, Any]]:
    """What is committed of the measurements over seeds: those of the main score, and what was chosen on other folds or families."""
    return [_rounded(row) for row in rows if row["detector"] == main or row["selection"] in ("out_of_fold", "left_out")]


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()}


def _box(row: ResultRow | DamageEntry | None, *, signed: bool = False) -> str:
    if row is None:
        return ""
    sign = "+" if signed else ""
    return f"{row.estimate:{sign}.3f} ({row.low:{sign}.2f} to {row.high:{sign}.2f})"


def _told(row: ResultRow | None) -> str:
    """A difference, and in bold whether its interval leaves zero."""
    box = _box(row, signed=True)
    if row is None or row.low <= 0 <= row.high:
        return box
    return f"**{box}**"


class _Suite:
    """The rows of one suite of the lowest seed, by contrast, metric and detector."""

    def __init__(self, results: Results, name: str) -> None:
        self.name, self.main = name, results.main
        self.rows = [row for row in first_seed(results.rows) if row.suite == name]
        self.arms = arms_of(self.rows, name)
        self.dial = is_dial(self.arms)
        self.apart = is_apart(results, name)

    def one(self, arm: Arm, metric: str, detector: str, against: str = "", selection: str = "") -> ResultRow | None:
        """The row of a contrast, where there is one."""
        for row in self.rows:
            if (row.metric, row.detector, Arm(row.family, row.dose, row.negatives)) != (metric, detector, arm):
                continue
            if (not against or row.against == against) and (not selection or row.selection == selection):
                return row
        return None

    def difference(self, arm: Arm) -> ResultRow | None:
        """The main score minus the baseline that other folds chose."""
        return self.one(arm, "auroc_difference_out_of_fold", self.main, selection="main")


def _suites(results: Results) -> list[_Suite]:
    return [_Suite(results, name) for name in dict.fromkeys(row.suite for row in results.rows)]


def _where(suite: _Suite, arm: Arm) -> str:
    family = "" if arm.family in ("all", suite.name) else f"{arm.family} "
    return f"{family}{dose_name(arm.dose) if suite.dial else ''}".strip() or "all"


def suites(results: Results) -> str:
    """A line a suite, at the dose nearest to 20 %, all kinds of shift and of negatives together."""
    head = (
        "suite",
        "dose",
        "pairs",
        f"`{results.main}`",
        "mean NLL",
        "Mahalanobis",
        "minus the best baseline",
        "adds, nats",
    )
    lines: list[Sequence[str]] = []
    for suite in _suites(results):
        if suite.apart:
            continue
        arm = headline_arm(suite.arms)
        main = suite.one(arm, "auroc", results.main)
        if main is None:
            continue
        plain = [_box(suite.one(arm, "auroc", name)) for name in ("nll", "mahalanobis")]
        added = suite.one(arm, "added_log_loss", results.main)
        lines.append(
            [
                f"`{suite.name}`",
                _where(suite, arm),
                str(main.n_pairs),
                _box(main),
                *plain,
                _told(suite.difference(arm)),
                _told(added),
            ]
        )
    said = (
        "AUROC, 95 % interval by pair in brackets. The best baseline of all is chosen on other folds of the pairs. The last column: "
        "what the main score adds to seven baselines together (gain in log likelihood a text, five-fold). Bold: the interval "
        "excludes zero."
    )
    return "\n\n".join([table(head, lines), said, _apart(results)]).strip()


def _apart(results: Results) -> str:
    """Suites of novel and harmless texts: how many raise an alarm."""
    lines: list[Sequence[str]] = []
    names = (results.main, "nll", "mahalanobis", "tokens_per_word")
    for suite in _suites(results):
        rows = [r for r in suite.rows if r.metric == "alarm_rate_at_5" and r.detector in names]
        for family in dict.fromkeys(r.family for r in rows):
            cells = {r.detector: r for r in rows if r.family == family}
            one = next(iter(cells.values()))
            count = str(one.n_shifted or one.n_clean or one.n_pairs)
            lines.append([f"`{suite.name}`", family, count, *(_box(cells.get(name)) for name in names)])
    if not lines:
        return ""
    head = ("suite", "family", "texts", *(f"`{name}`" for name in names))
    return f"Novel and harmless texts, share that raises an alarm at 5 %:\n\n{table(head, lines)}"


def doses(results: Results) -> str:
    """Dose by dose, for every suite that has a dial, all its families together."""
    lines: list[Sequence[str]] = []
    for suite in _suites(results):
        if not suite.dial:
            continue
        family = headline_arm(suite.arms).family
        for arm in (a for a in suite.arms if a.family == family and a.negatives == "all"):
            areas = [_box(suite.one(arm, "auroc", name)) for name in (results.main, *SHOWN[:3], "tokens_per_word")]
            caught = suite.one(arm, "tpr_at_1_fpr", results.main)
            lines.append([f"`{suite.name}`", dose_name(arm.dose), *areas, _told(suite.difference(arm)), _box(caught)])
    names = [f"`{name}`" for name in (results.main, *SHOWN[:3], "tokens_per_word")]
    return table(("suite", "dose", *names, "minus the best baseline", "caught at 1 % false alarms"), lines)


def rare(results: Results) -> str:
    """What is caught at 1 % false alarms in the suites of prompts, family by family."""
    lines: list[Sequence[str]] = []
    for suite in _suites(results):
        if suite.dial or suite.apart:
            continue
        for arm in suite.arms:
            main = suite.one(arm, "tpr_at_1_fpr", results.main)
            if main is None:
                continue
            where = arm.family if arm.negatives == "all" else f"{arm.family}, negatives {arm.negatives}"
            others = [_box(suite.one(arm, "tpr_at_1_fpr", name)) for name in RARE]
            lines.append(
                [f"`{suite.name}`", where, f"{main.n_shifted} / {main.n_clean}", _box(main), *others]
                + [_box(suite.one(arm, "auroc", name)) for name in (results.main, *RARE)]
            )
    names = [f"`{name}`" for name in (results.main, *RARE)]
    head = ("suite", "family", "shifted / clean", *(f"TPR {n}" for n in names), *(f"AUROC {n}" for n in names))
    return table(head, lines)


def damage(results: Results) -> str:
    """What the corruptions do to the model, and which scores follow it."""
    found = [
        [
            f"`{entry.suite}`",
            entry.family,
            dose_name(entry.dose),
            entry.measure.replace("_", " "),
            _box(entry),
            str(entry.n_pairs),
        ]
        for entry in results.damage
    ]
    parts = [table(("suite", "family", "dose", "damage", "mean", "texts"), found)]
    lines: list[Sequence[str]] = []
    for suite in _suites(results):
        for kind in ("kl", "nll_rise"):
            rows = [r for r in suite.rows if r.metric == f"damage_{kind}_spearman" and r.dose == 0]
            gain = next(
                (r for r in suite.rows if r.metric == f"damage_{kind}_spearman_difference" and r.dose == 0), None
            )
            main = next((r for r in rows if r.detector == results.main), None)
            if main is None or gain is None:
                continue
            rival = next((r for r in rows if r.detector == gain.against), None)
            own = [f"`{suite.name}`", kind.replace("_", " "), str(main.n_pairs), _box(main)]
            lines.append([*own, f"`{gain.against}`", _box(rival), _told(gain)])
    head = ("suite", "damage", "passages", f"`{results.main}`", "best baseline", "its correlation", "difference")
    return "\n\n".join(
        [*parts, "Rank correlation of scores with the damage to the same text, all doses together:", table(head, lines)]
    )


def aims(results: Results) -> str:
    """What was aimed at for typing errors, and what came out, over the seeds."""
    lines: list[Sequence[str]] = []
    for dose, wanted in TARGETS.items():
        here = [r for r in results.seeds if (r.suite, r.dose, r.negatives) == ("typos", dose, "all")]
        area = next((r for r in here if (r.metric, r.detector) == ("auroc", results.main)), None)
        gain = next((r for r in here if (r.metric, r.detector) == ("auroc_difference_out_of_fold", results.main)), None)
        if area is None or gain is None:
            continue
        reached = "reached" if area.least >= wanted else f"**missed** by {wanted - area.mean:.3f}"
        gained = f"{gain.mean:+.3f} ({gain.least:+.3f} to {gain.greatest:+.3f})"
        above = "yes" if gain.every_interval_above_zero else "**no**"
        span = f"{area.least:.3f} to {area.greatest:.3f}"
        lines.append([dose_name(dose), f"{wanted:.2f}", f"{area.mean:.3f}", span, reached, gained, above])
    head = (
        "typos",
        "aimed at",
        f"`{results.main}`, mean",
        "over the seeds",
        "",
        "minus the best baseline",
        "every interval above zero",
    )
    return table(head, lines)


def dose_curves(results: Results, suite: str) -> str:
    """AUROC by dose of a suite, as a whole SVG file."""
    one = _Suite(results, suite)
    family = headline_arm(one.arms).family
    arms = sorted((a for a in one.arms if a.family == family and a.negatives == "all"), key=lambda a: a.dose)
    lines: list[Series] = []
    for slot, name in enumerate((results.main, "nll", "mahalanobis", "tokens_per_word", "recon_error", "surprise")):
        rows = [(i, one.one(arm, "auroc", name)) for i, arm in enumerate(arms)]
        cells = [(float(i), row.estimate, row.low, row.high) for i, row in rows if row is not None]
        if cells:
            lines.append(Series(name, *(tuple(column) for column in zip(*cells, strict=True)), slot=slot))
    low = 0.4 if min(min(line.lows) for line in lines) >= 0.4 else 0.0
    ticks = tuple((i / 10, number(i / 10, 1)) for i in range(round(10 * low), 11, 1 if low else 2))
    x = Axis("dose", -0.15, len(arms) - 0.85, tuple((float(i), dose_name(a.dose)) for i, a in enumerate(arms)))
    chart = line_chart(lines, x, Axis("AUROC", low, 1.0, ticks), title=f"{suite}: AUROC by dose", level=0.5)
    return whole_file(chart)


def whole_file(chart: Html) -> str:
    """A figure with its style, to stand alone."""
    opened, _, rest = str(chart).partition(">")
    size = 'xmlns="http://www.w3.org/2000/svg" width="560" height="300" style="background:#fff"'
    return f"{opened} {size}><style>{STYLE}</style>{rest}\n"


def _view(make: Callable[[Results], str]) -> Callable[[dict[str, Any]], str]:
    def view(whole: dict[str, Any]) -> str:
        results = parse_results(whole)
        return f"{make(results)}\n\n{source(whole)} {results.subtitle}".strip()

    return view


VIEWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "suites": _view(suites),
    "doses": _view(doses),
    "rare": _view(rare),
    "damage": _view(damage),
    "aims": _view(aims),
}
"""View -> Markdown of a result file."""

FIGURES = ("typos", "word_order")
"""Suites that have a figure: docs/figures/NAME.svg."""
