"""`perimetry report`: results to one self-contained HTML file."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from perimetry.cli.common import Json, emit, note

__all__ = ["report"]


def report(
    results: Annotated[
        Path, Parameter(help="The results.json of a demo, a bench or a study, or the folder that holds it.")
    ],
    *,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="HTML file; default: report.html beside it.")
    ] = None,
    json: Json = False,
) -> None:
    """Write tables and figures of a results file to one HTML file that needs nothing else."""
    from perimetry.report import build_report, read_results

    source = results / "results.json" if results.is_dir() else results
    target = out or source.with_name("report.html")
    build_report(read_results(source), target)
    emit({"report": str(target)}, json, lambda: note(f"{target}"))
