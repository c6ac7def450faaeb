"""The page of a study: what was chosen, whether it held, and how layers and dictionaries compare."""

from collections.abc import Callable, Iterable, Sequence

from perimetry.report.making import making_section, matching_section
from perimetry.report.markup import Html, Node, join, number, tag
from perimetry.report.measures import more
from perimetry.report.schema_study import ConfirmedSeeds, StudiedRow, StudiedScore, StudyResults
from perimetry.report.sections import Section
from perimetry.report.tables import framed
from perimetry.report.verdicts import Tone, Verdict, verdict_list

__all__ = ["best_cells", "dictionary_names", "study_sections", "study_verdicts"]

LEADERS = 20
Place = tuple[int, str]
"""Layer and column of a heat map."""


def study_sections(results: StudyResults) -> list[Section]:
    """The sections of the page that have something to show."""
    found = [
        Section("verdict", "What came out", _verdict(results)),
        Section("heat", "Layers and dictionaries, validation", _heat(results)),
        Section("leaders", "Scores in the lead, validation", _leaders(results)),
        Section("confirmed", "The chosen score, test", _confirmed(results)),
        Section("saes", "The SAEs", _saes(results)),
        Section("negatives", "How the negatives match", matching_section(results)),
        Section("making", "How this was made", making_section(results)),
    ]
    return [section for section in found if section.content]


def _place(score: StudiedScore) -> str:
    sae = f", {score.architecture} {score.width}" if score.architecture else ""
    return f"{score.detector} (layer {score.layer}{sae})"


def study_verdicts(results: StudyResults) -> list[Verdict]:
    """What was chosen, and in a sentence a suite what the test suites said of it, whichever way it went."""
    one, other, said = results.chosen, results.chosen_baseline, results.compared
    chosen = (
        f"Chosen of {said['concept']} concept scores: {_place(one)}, validation AUROC {number(one.mean)}; of "
        f"{said['baseline']} baselines: {_place(other)}, {number(other.mean)}."
    )
    found = [Verdict("plain", chosen)]
    for row in results.confirmed.over_seeds:
        if row.metric == "auroc_difference" and not row.dose:
            tone: Tone = "good" if row.low > 0 else "bad" if row.high < 0 else "open"
            did = {"good": "beats", "bad": "loses to", "open": "is not told apart from"}[tone]
            text = (
                f"{row.suite}, test: {one.detector} {did} {other.detector}, difference of AUROC {number(row.mean)} "
                f"({number(row.low)} to {number(row.high)}; {row.n_pairs} pairs, mean of {row.seeds} SAE seed(s), least "
                f"{number(row.least)}, greatest {number(row.greatest)})."
            )
            found.append(Verdict(tone, text))
    looks = results.confirmed.looks
    if looks > 1:
        found.append(Verdict("bad", f"The test suites were looked at {looks} times, not once."))
    return found


def _verdict(results: StudyResults) -> Html:
    return verdict_list(study_verdicts(results), results.rule)


def _heat(results: StudyResults) -> Html:
    concepts = [score for score in results.cells if score.kind == "concept"]
    bare = [score for score in results.cells if score.kind == "baseline" and not score.architecture]
    column = dictionary_names(concepts)
    best = _map("Best concept score of each cell; the best of many, so somewhat too high", concepts, column)
    main = [score for score in concepts if score.detector == results.main]
    named = _map(f"{results.main}, the score that was named before", main, column) if main else None
    none = _map("Best baseline that reads no SAE", bare, lambda _: "no SAE") if bare else None
    note = tag("p", "AUROC on the validation suites, by the rule of the study, mean over the seeds.", class_="muted")
    return join([note, best, named, none])


def dictionary_names(scores: Iterable[StudiedScore]) -> Callable[[StudiedScore], str]:
    """How the columns of a map are called: with the width where there are several."""
    several = len({score.width for score in scores}) > 1
    return lambda score: f"{score.architecture} {score.width}" if several else score.architecture


def best_cells(scores: Iterable[StudiedScore], column: Callable[[StudiedScore], str]) -> dict[Place, StudiedScore]:
    """The best score of each layer and column."""
    cells: dict[Place, StudiedScore] = {}
    for score in scores:
        place = (score.layer, column(score))
        if place not in cells or score.mean > cells[place].mean:
            cells[place] = score
    return cells


def _map(caption: str, scores: Iterable[StudiedScore], column: Callable[[StudiedScore], str]) -> Html:
    """Layers down, dictionaries across; the best score of each, the best of all in bold."""
    cells = best_cells(scores, column)
    columns = list(dict.fromkeys(name for _, name in cells))
    top = max(score.mean for score in cells.values())
    head = tag("tr", tag("th", "layer", scope="col"), *(tag("th", name, scope="col", class_="num") for name in columns))
    body = [
        tag("tr", tag("th", layer, scope="row"), *(_heat_cell(cells.get((layer, name)), top) for name in columns))
        for layer in sorted({layer for layer, _ in cells})
    ]
    return framed(caption, head, body)


def _heat_cell(score: StudiedScore | None, top: float) -> Html:
    if score is None:
        return tag("td", "–", class_="num")
    strength = min(max((score.mean - 0.5) * 2, 0.0), 1.0)
    value = tag("strong" if score.mean == top else "span", number(score.mean))
    style, exact = f"--s:{strength:.2f}", f"{score.mean:.6f}"
    return tag("td", value, tag("small", score.detector), class_="num cell", style=style, data_value=exact)


def _leaders(results: StudyResults) -> Html:
    parts: list[Node] = []
    for kind, caption in (("concept", "Concept scores"), ("baseline", "Baselines")):
        order = sorted((s for s in results.cells if s.kind == kind), key=lambda s: (-s.mean, s.layer, s.detector))
        parts.append(_score_table(f"{caption}, the first {min(LEADERS, len(order))} of {len(order)}", order[:LEADERS]))
        if len(order) > LEADERS:
            parts.append(more(f"All {len(order)}", _score_table(caption, order)))
    return join(parts)


def _score_table(caption: str, scores: Sequence[StudiedScore]) -> Html:
    body = [
        tag(
            "tr",
            tag("th", score.detector, scope="row"),
            *_where(score.layer, score.architecture, score.width),
            *(tag("td", number(value), class_="num") for value in (score.mean, score.least, score.greatest)),
            tag("td", score.seeds, class_="num"),
        )
        for score in scores
    ]
    names = ("detector", "layer", "architecture", "width", "AUROC", "worst seed", "best seed", "seeds")
    return framed(caption, _head(names, frozenset({"detector", "architecture"})), body)


def _where(layer: int, architecture: str, width: int) -> list[Html]:
    return [tag("td", layer, class_="num"), tag("td", architecture or "–"), tag("td", width or "–", class_="num")]


def _confirmed(results: StudyResults) -> Html:
    note = (
        f"Measured once, on {results.confirmed.date}."
        if results.confirmed.looks == 1
        else f"Measured {results.confirmed.looks} times, last on {results.confirmed.date}."
    )
    rows = [row for row in results.rows if row.split == "test"]
    return join(
        [
            tag("p", note, " Intervals are bootstraps by pair; differences are paired.", class_="muted"),
            _together_table(results.confirmed.over_seeds),
            more("Every seed", _row_table(rows)),
        ]
    )


def _dose(value: float) -> str:
    return f"{100 * value:g} %" if value else "mean over doses"


def _measure(metric: str, against: str) -> str:
    return f"AUROC minus that of {against}" if metric == "auroc_difference" else "AUROC"


def _together_table(rows: Sequence[ConfirmedSeeds]) -> Html:
    body = [
        tag(
            "tr",
            tag("th", row.suite, scope="row"),
            tag("td", _dose(row.dose)),
            tag("td", row.detector),
            tag("td", _measure(row.metric, row.against)),
            tag("td", number(row.mean), class_="num"),
            tag("td", f"{number(row.low)} to {number(row.high)}", class_="num"),
            *(tag("td", number(value), class_="num") for value in (row.least, row.greatest)),
            tag("td", row.seeds, class_="num"),
            tag("td", row.n_pairs, class_="num"),
        )
        for row in rows
    ]
    names = ("suite", "dose", "score", "measure", "mean", "interval", "worst seed", "best seed", "seeds", "pairs")
    return framed("Over the SAE seeds", _head(names, frozenset(names[:4])), body)


def _row_table(rows: Sequence[StudiedRow]) -> Html:
    body = [
        tag(
            "tr",
            tag("th", row.suite, scope="row"),
            tag("td", _dose(row.dose)),
            tag("td", row.detector),
            tag("td", _measure(row.metric, row.against)),
            *_where(row.layer, row.architecture, row.width),
            tag("td", row.seed if row.architecture else "–", class_="num"),
            tag("td", number(row.estimate), class_="num"),
            tag("td", f"{number(row.low)} to {number(row.high)}", class_="num"),
            tag("td", row.n_pairs, class_="num"),
        )
        for row in rows
    ]
    names = (
        "suite",
        "dose",
        "score",
        "measure",
        "layer",
        "architecture",
        "width",
        "seed",
        "value",
        "interval",
        "pairs",
    )
    return framed("Each SAE seed", _head(names, frozenset({*names[:4], "architecture"})), body)


def _saes(results: StudyResults) -> Html:
    body = [
        tag(
            "tr",
            tag("th", sae.layer, scope="row", class_="num"),
            tag("td", sae.architecture),
            *(tag("td", value, class_="num") for value in (sae.width, sae.seed)),
            tag("td", number(sae.fvu), class_="num"),
            tag("td", f"{sae.l0:.1f}", class_="num"),
            tag("td", f"{100 * sae.dead:.1f} %", class_="num"),
            tag("td", tag("code", sae.digest[:16])),
        )
        for sae in results.saes
    ]
    names = ("layer", "architecture", "width", "seed", "FVU", "L0", "dead", "identity")
    return framed("On tokens of after the training", _head(names, frozenset({"architecture", "identity"})), body)


def _head(names: Sequence[str], words: frozenset[str]) -> Html:
    return tag("tr", *(tag("th", name, scope="col", class_=None if name in words else "num") for name in names))
