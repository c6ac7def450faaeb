"""The view of a result file of `perimetry study`; make_results.py puts it between the marks."""

from collections.abc import Callable, Iterable
from typing import Any

from performance import source, table

from perimetry.report.schema_study import StudiedScore, parse_study
from perimetry.report.study import best_cells, dictionary_names, study_verdicts

__all__ = ["VIEWS", "study", "taken"]

TONES = {"good": "**holds:** ", "bad": "**fails:** ", "open": "**open:** "}


def taken(whole: dict[str, Any]) -> dict[str, Any]:
    """What is committed of a study: the means of all scores, and the rows of the test texts alone."""
    parse_study(whole)
    return {**whole, "rows": [row for row in whole["rows"] if row["split"] == "test"]}


def study(whole: dict[str, Any]) -> str:
    """What was chosen and confirmed; layers by dictionaries for the best and for the named score; the test, dose by dose."""
    results = parse_study(whole)
    concepts = [score for score in results.cells if score.kind == "concept"]
    column = dictionary_names(concepts)
    named = [score for score in concepts if score.detector == results.main]
    bare = [score for score in results.cells if score.kind == "baseline" and not score.architecture]
    parts = ["\n".join(f"* {TONES.get(v.tone, '')}{v.text}" for v in study_verdicts(results)), results.rule]
    parts += ["Validation AUROC, best concept score of each cell:", _map(concepts, column)]
    if named:
        parts += [f"The same of `{results.main}`, which was named before:", _map(named, column)]
    if bare:
        parts += ["The best baseline that reads no SAE:", _map(bare, lambda _: "no SAE")]
    lines = [
        [
            row.suite,
            f"{100 * row.dose:g} %" if row.dose else "mean",
            f"`{row.detector}`" + (f" minus `{row.against}`" if row.against else ""),
            f"{row.mean:.3f} ({row.low:.3f} to {row.high:.3f})",
            f"{row.least:.3f} to {row.greatest:.3f}",
            f"{row.n_pairs}",
        ]
        for row in results.confirmed.over_seeds
    ]
    head = ("suite", "dose", "AUROC of", "mean of the seeds", "seeds", "pairs")
    parts += ["The chosen score on the test suites:", table(head, lines), source(whole)]
    return "\n\n".join(parts)


def _map(scores: Iterable[StudiedScore], column: Callable[[StudiedScore], str]) -> str:
    cells = best_cells(scores, column)
    names = list(dict.fromkeys(name for _, name in cells))
    layers = sorted({layer for layer, _ in cells})
    lines = [[str(layer), *(_cell(cells.get((layer, name))) for name in names)] for layer in layers]
    return table(["layer", *names], lines)


def _cell(score: StudiedScore | None) -> str:
    return "" if score is None else f"{score.mean:.3f} `{score.detector}`"


VIEWS: dict[str, Callable[[dict[str, Any]], str]] = {"study": study}
"""View -> Markdown of a result file."""
