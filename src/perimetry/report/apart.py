"""Suites whose shifted texts are novel and harmless: shown apart, because an alarm on them is no success against attacks."""

from perimetry.report.markup import Html, Node, join, tag
from perimetry.report.measures import ALARMS, interval_table, more
from perimetry.report.picking import first_seed, is_apart
from perimetry.report.schema import ResultRow, Results
from perimetry.report.tables import detector_table

__all__ = ["benign_section"]

NOTE = (
    "These texts are far from the clean ones and do no harm. A meter of shift should score them high; for a detector of "
    "attacks every alarm on them is a false one. The matched clean texts stand below as a control: there the share should be "
    "the rate asked for."
)


def _place(row: ResultRow) -> str:
    if row.family == "all":
        return "all novel, harmless texts"
    return row.family if row.n_shifted else f"{row.family} (clean)"


def benign_section(results: Results) -> Html:
    """Alarm rates on the harmless families; for a suite that holds nothing else, how well it is told from clean text too."""
    rows = first_seed(results.rows)
    parts: list[Node] = [tag("p", NOTE, class_="muted")]
    for suite in results.benign:
        own = [row for row in rows if row.suite == suite]
        alarms = [row for row in own if row.metric in ALARMS]
        if not alarms:
            continue
        caption = "Share of texts that raised an alarm at a calibrated false-alarm rate."
        shown = [row for row in alarms if row.detector == results.main]
        rest = [row for row in alarms if row.family == "all" and "." not in row.detector]
        parts += [tag("h3", suite), interval_table(shown, f"{results.main}: {caption}", ALARMS, _place)]
        parts.append(more("Every detector and baseline", interval_table(rest, caption, ALARMS, _place)))
        if is_apart(results, suite):
            bare = frozenset(row.detector for row in own if "." not in row.detector or row.detector == results.main)
            table = detector_table(own, suite, "auroc", main=results.main, only=bare)
            parts.append(more("AUROC against clean passages", table))
    return join(parts) if len(parts) > 1 else join([])
