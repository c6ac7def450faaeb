"""Results to one self-contained HTML file: no request leaves the page, and every text in it is escaped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perimetry.report.edit_check import edit_check_sections
from perimetry.report.evaluation import evaluation_sections
from perimetry.report.lab import lab_sections
from perimetry.report.markup import Html, join, tag
from perimetry.report.masking import masking_sections
from perimetry.report.robustness import robustness_sections
from perimetry.report.schema import MadeResults, Results, parse_results
from perimetry.report.schema_edit_check import EDIT_CHECK, EditCheckResults, parse_edit_check
from perimetry.report.schema_evaluation import EVALUATION, EvaluationResults, parse_evaluation
from perimetry.report.schema_lab import LAB, LabResults, parse_lab
from perimetry.report.schema_masking import MASKING, MaskingResults, parse_masking
from perimetry.report.schema_robustness import (
    ROBUSTIFY,
    ROBUSTNESS,
    RobustnessResults,
    TunedResults,
    parse_robustness,
    parse_tuned,
)
from perimetry.report.schema_steering import STEERING, SteeringResults, parse_steering
from perimetry.report.schema_study import STUDY, StudyResults, parse_study
from perimetry.report.schema_truth import TRUTH, TruthResults, parse_truth
from perimetry.report.sections import Section, sections
from perimetry.report.steering import steering_sections
from perimetry.report.study import study_sections
from perimetry.report.style import SCRIPT, STYLE
from perimetry.report.truth import truth_sections
from perimetry.report.tuned import tuned_sections
from perimetry.storage import read_json, write_bytes, write_json

__all__ = ["build_report", "keep_results", "read_results", "render"]

PARSERS = {
    STUDY: parse_study,
    EDIT_CHECK: parse_edit_check,
    EVALUATION: parse_evaluation,
    LAB: parse_lab,
    MASKING: parse_masking,
    ROBUSTIFY: parse_tuned,
    ROBUSTNESS: parse_robustness,
    STEERING: parse_steering,
    TRUTH: parse_truth,
}
"""Kind of results -> its schema; the others are those of a bench."""
MOST_BYTES = 2**30
"""Of a results file."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def build_report(results: dict[str, Any], out: Path) -> Path:
    """Write the report of the content of a `results.json`, of a bench, a study or evaluations, to `out` and return that path.

    Errors: `ConfigError` when the results are not what the schema of their kind describes, `StorageFull`, `StorageError`.
    """
    parse = PARSERS.get(str(results.get("kind")), parse_results)
    write_bytes(out, render(parse(results)).encode())
    return out


def read_results(path: Path) -> dict[str, Any]:
    """The content of a `results.json`: all suites under several seeds take more than other files. Errors: as `read_json`."""
    return read_json(path, most=MOST_BYTES)


def keep_results(results: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write `results.json` and `report.html` to a folder; returns the results as read back, which is what the page was made of.

    So `perimetry report` gives the same page. Errors: as `build_report`.
    """
    write_json(folder / "results.json", results, indent=None)
    found = read_results(folder / "results.json")
    build_report(found, folder / "report.html")
    return found


AnyResults = (
    Results
    | StudyResults
    | EditCheckResults
    | EvaluationResults
    | LabResults
    | MaskingResults
    | RobustnessResults
    | SteeringResults
    | TruthResults
    | TunedResults
)


def render(results: AnyResults) -> str:
    """The page."""
    match results:
        case StudyResults():
            parts = study_sections(results)
        case EditCheckResults():
            parts = edit_check_sections(results)
        case EvaluationResults():
            parts = evaluation_sections(results)
        case LabResults():
            parts = lab_sections(results)
        case MaskingResults():
            parts = masking_sections(results)
        case RobustnessResults():
            parts = robustness_sections(results)
        case SteeringResults():
            parts = steering_sections(results)
        case TruthResults():
            parts = truth_sections(results)
        case TunedResults():
            parts = tuned_sections(results)
        case Results():
            parts = sections(results)
    return _page(results, parts)


def _page(results: MadeResults, parts: Sequence[Section]) -> str:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="generator", content=f"perimetry {results.version}"),
        tag("title", results.title),
        tag("style", Html(STYLE)),
    )
    header = tag(
        "header",
        tag("h1", results.title),
        tag("p", results.subtitle, class_="lead") if results.subtitle else None,
        tag("p", f"perimetry {results.version} · {results.date}", class_="muted"),
    )
    links = tag("nav", *(tag("a", part.title, href=f"#{part.anchor}") for part in parts), aria_label="Sections")
    main = tag("main", join(tag("section", tag("h2", p.title, id=p.anchor), p.content) for p in parts))
    body = tag("body", header, links, main, tag("script", Html(SCRIPT)))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"
