"""The page of evaluations: what each dictionary is worth over its controls, all numbers, and how dictionaries differ."""

from collections.abc import Callable, Sequence

from perimetry.report.curves import figure
from perimetry.report.evaluation_figures import curve_figures, dot_figures
from perimetry.report.making import making_section
from perimetry.report.markup import Html, Node, join, number, tag
from perimetry.report.measures import more
from perimetry.report.schema_evaluation import EvaluationResults, EvaluationRow
from perimetry.report.sections import Section
from perimetry.report.tables import framed
from perimetry.report.verdicts import Tone, Verdict, verdict_list

__all__ = ["evaluation_sections", "evaluation_verdicts"]

MAIN_K = 16
"""Of several counts of latents the one that a sentence is about: the largest up to this one."""
FRONT = {
    "fidelity": "explained_variance",
    "absorption": "full_absorption",
    "probing": "auroc",
    "ood_probing": "auroc_ood",
}
"""Evaluation -> the metric that the sentences on top are about."""
Key = tuple[str, str, int, str]
"""Evaluation, metric, k and arm."""


def evaluation_sections(results: EvaluationResults) -> list[Section]:
    """The sections of the page that have something to show."""
    found = [
        Section("verdict", "What came out", _verdict(results)),
        Section("figures", "At a glance", _figures(results)),
        Section("numbers", "Every number", _numbers(results, reliable=True)),
        Section("margins", "Over the controls", _margins(results)),
        Section("between", "Against the first dictionary", _between(results)),
        Section("latents", "Latents in common", _diffs(results)),
        Section("refused", "What could not be judged", _refused(results)),
        Section("unreliable", "For comparison only", _numbers(results, reliable=False)),
        Section("definitions", "What the numbers mean", _definitions(results)),
        Section("saes", "The dictionaries", _saes(results)),
        Section("making", "How this was made", making_section(results)),
    ]
    return [section for section in found if section.content]


def _said(row: EvaluationRow, name: str) -> Verdict:
    better = row.low > 0 if row.higher else row.high < 0
    worse = row.high < 0 if row.higher else row.low > 0
    tone: Tone = "good" if better else "bad" if worse else "open"
    did = {"good": "better than", "bad": "worse than", "open": "not told apart from"}[tone]
    at = f" at k = {row.k}" if row.k else ""
    text = (
        f"{row.sae}: {row.evaluation} {_plain(row.metric)}{at} is {did} {name}, difference {number(row.estimate)} "
        f"({number(row.low)} to {number(row.high)}; {row.n} units)."
    )
    return Verdict(tone, text)


def evaluation_verdicts(results: EvaluationResults) -> list[Verdict]:
    """In a sentence each, whichever way it went: every dictionary against its controls, and against the first one."""
    names = [one.name for one in results.saes]
    found: list[Verdict] = []
    for row in results.rows:
        if not row.against or row.control or row.case or row.arm != "sae" or row.metric != FRONT.get(row.evaluation):
            continue
        ks = [r.k for r in results.rows if (r.evaluation, r.metric) == (row.evaluation, row.metric)]
        if row.k == max([k for k in ks if k <= MAIN_K], default=min(ks)):
            found.append(_said(row, row.against if row.against in names else f"its {_plain(row.against)}"))
    return found


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _verdict(results: EvaluationResults) -> Html:
    note = "Intervals are bootstraps over the units of each evaluation (documents, letters, labelled sets); differences are paired."
    return verdict_list(evaluation_verdicts(results), note)


def _figures(results: EvaluationResults) -> Html:
    pictures = [figure(picture, caption) for picture, caption in (*dot_figures(results), *curve_figures(results))]
    return tag("div", *pictures, class_="figures") if pictures else join([])


def _columns(rows: Sequence[EvaluationRow]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row.sae, row.control) for row in rows))


def _numbers(results: EvaluationResults, *, reliable: bool) -> Html:
    parts: list[Node] = []
    for about in results.evaluations:
        own = [r for r in results.rows if r.evaluation == about.name and not r.against]
        if not own or about.reliable != reliable:
            continue
        parts.append(tag("h3", about.name))
        if about.caveat:
            parts.append(tag("p", about.caveat, class_="muted"))
        parts.append(_grid([r for r in own if not r.case], about.name))
        apart = [r for r in own if r.case]
        if apart:
            parts.append(more("By data set, shift, seed or other dictionary", _grid(apart, about.name)))
    return join(parts)


def _grid(rows: Sequence[EvaluationRow], caption: str) -> Html:
    """Metrics down, dictionaries and their controls across."""
    columns = _columns(rows)
    lines: dict[tuple[str, str, int, str], dict[tuple[str, str], EvaluationRow]] = {}
    for row in rows:
        lines.setdefault((row.metric, row.case, row.k, row.arm), {})[row.sae, row.control] = row
    names = ["metric", "case", "k", "arm", *(f"{s}, {_plain(c)}" if c else s for s, c in columns)]
    body = [
        tag(
            "tr",
            tag("th", _plain(metric), scope="row"),
            tag("td", case or "–"),
            tag("td", k or "–", class_="num"),
            tag("td", arm),
            *(_cell(found.get(column)) for column in columns),
        )
        for (metric, case, k, arm), found in lines.items()
    ]
    return _table(caption, names, 4, body)


def _cell(row: EvaluationRow | None) -> Html:
    if row is None:
        return tag("td", "–", class_="num")
    box = tag("small", f"{number(row.low)} to {number(row.high)}")
    return tag("td", number(row.estimate), " ", box, class_="num", title=f"{row.n} units; {row.method}")


def _differences(rows: Sequence[EvaluationRow], caption: str, name: Callable[[EvaluationRow], str]) -> Html:
    body = [
        tag(
            "tr",
            tag("th", row.sae, scope="row"),
            tag("td", row.evaluation),
            tag("td", _plain(row.metric)),
            tag(
                "td",
                " ".join(
                    filter(None, (row.case, f"k = {row.k}" if row.k else "", "" if row.arm == "sae" else row.arm))
                ),
            ),
            tag("td", name(row)),
            tag("td", number(row.estimate), class_="num"),
            tag("td", f"{number(row.low)} to {number(row.high)}", class_="num"),
            tag("td", "–" if row.p_value is None else number(row.p_value, 4), class_="num"),
            tag("td", row.n, class_="num"),
            tag("td", "–" if row.higher is None else "higher" if row.higher else "lower"),
        )
        for row in rows
    ]
    names = ["dictionary", "evaluation", "metric", "of", "minus", "difference", "interval", "p", "units", "better"]
    return _table(caption, names, 5, body)


def _margins(results: EvaluationResults) -> Html:
    names = {one.name for one in results.saes}
    rows = [r for r in results.rows if r.against and r.against not in names and r.arm == "sae"]
    return _folded(rows, "Dictionary minus its control, on the same units", lambda row: f"its {_plain(row.against)}")


def _between(results: EvaluationResults) -> Html:
    names = {one.name for one in results.saes}
    rows = [r for r in results.rows if r.against in names and r.arm == "sae"]
    return _folded(rows, "On the same units", lambda row: row.against)


def _folded(rows: Sequence[EvaluationRow], caption: str, name: Callable[[EvaluationRow], str]) -> Html:
    """What is about all units together in sight, the rest folded away."""
    whole, apart = [r for r in rows if not r.case], [r for r in rows if r.case]
    parts: list[Node] = [_differences(whole, caption, name)] if whole else []
    if apart:
        parts.append(more("By data set, shift or seed", _differences(apart, caption, name)))
    return join(parts)


def _diffs(results: EvaluationResults) -> Html:
    if not results.feature_diffs:
        return join([])
    kinds = list(dict.fromkeys(kind for one in results.feature_diffs for kind in one.counts))
    body = [
        tag(
            "tr",
            tag("th", one.first, scope="row"),
            tag("td", one.second),
            *(tag("td", one.counts.get(kind, 0), class_="num") for kind in kinds),
            tag("td", tag("code", one.file)),
        )
        for one in results.feature_diffs
    ]
    caption = (
        "Latents that only one of two dictionaries has, that both have, and that are near a latent with a nearer twin"
    )
    return _table(caption, ["first", "second", *kinds, "all of them"], 2, body)


def _refused(results: EvaluationResults) -> Html:
    if not results.refused:
        return join([])
    body = [
        tag(
            "tr",
            tag("th", one.sae, scope="row"),
            tag("td", _plain(one.control) or "–"),
            tag("td", one.evaluation or "–"),
            tag("td", one.why),
        )
        for one in results.refused
    ]
    return _table("Each with its reason", ["dictionary", "control", "evaluation", "why"], 4, body)


def _definitions(results: EvaluationResults) -> Html:
    parts: list[Node] = []
    for about in results.evaluations:
        parts.append(tag("h3", f"{about.name}, definition {about.definition}"))
        parts.append(tag("p", about.source, class_="muted"))
        parts.append(
            tag("dl", *(part for name, text in about.metrics.items() for part in (tag("dt", name), tag("dd", text))))
        )
    return join(parts)


def _saes(results: EvaluationResults) -> Html:
    body = [
        tag(
            "tr",
            tag("th", one.name, scope="row"),
            tag("td", one.architecture),
            *(tag("td", value, class_="num") for value in (one.width, one.layer, one.seed)),
            tag("td", "–" if one.tokens is None else f"{one.tokens:,}", class_="num"),
            tag("td", ", ".join(f"{k} {v}" for k, v in one.masking.items()) or "–"),
            tag("td", tag("code", one.digest[:16])),
        )
        for one in results.saes
    ]
    names = ["name", "architecture", "width", "layer", "seed", "training tokens", "masking", "identity"]
    return _table("As read from disk", names, 2, body)


def _table(caption: str, names: Sequence[str], words: int, body: Sequence[Html]) -> Html:
    """The first `words` columns hold words, the others numbers."""
    head = tag("tr", *(tag("th", n, scope="col", class_=None if i < words else "num") for i, n in enumerate(names)))
    return framed(caption, head, body)
