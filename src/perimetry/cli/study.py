"""`perimetry study`: layers, architectures, widths and seeds compared, the best confirmed once."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from perimetry.cli.common import (
    ConfigFile,
    Device,
    DtypeFlag,
    Json,
    Out,
    Quiet,
    Threads,
    command_line,
    emit_results,
    note,
    wants_progress,
)
from perimetry.cli.masking import masking
from perimetry.cli.robustness import robustness
from perimetry.cli.truth import truth

__all__ = ["app", "study"]

app = App(
    name="study",
    help="Layers, dictionaries and seeds compared and confirmed once; what masking the training text does; what tuning gains; what is found where the truth is known.",
)
app.command(masking)
app.command(robustness)
app.command(truth)


@app.default
def study(
    *,
    out: Out = Path("runs/study"),
    preset: Annotated[
        str,
        Parameter(
            help="full (hours on two cores), quick (looks whether anything is wrong) or tiny (for tests: numbers mean nothing)."
        ),
    ] = "full",
    model: Annotated[str | None, Parameter(help="Asset name, local folder or hub id.")] = None,
    text: Annotated[str | None, Parameter(help="Clean text: asset name, .jsonl or folder; split by document.")] = None,
    force: Annotated[
        bool,
        Parameter(
            negative="", help="Look at the test suites again, although they were looked at; the results count it."
        ),
    ] = False,
    config: ConfigFile = None,
    device: Device = "auto",
    dtype: DtypeFlag = "auto",
    threads: Threads = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train SAEs of several layers, architectures, widths and seeds, choose the best score on validation texts, confirm it on test texts once.

    Killed at any moment, the same command continues and ends with the same numbers.
    """
    from perimetry.config import build, load_values
    from perimetry.pipeline.study import run_study
    from perimetry.pipeline.study_config import StudyConfig, with_preset
    from perimetry.pipeline.study_table import show_study
    from perimetry.runtime import RuntimeConfig, start

    values = load_values(section="study", file=config, overrides={"model": model, "text": text})
    settings = build(StudyConfig, with_preset(values, preset), "configuration [study]")
    runtime = start(RuntimeConfig.model_validate({"device": device, "dtype": dtype, "threads": threads}))
    flags = {"--preset": preset, "--model": model, "--text": text, "--config": config}
    results = run_study(
        settings,
        out,
        runtime,
        command=command_line(["perimetry", "study"], flags, out),
        force=force,
        progress=wants_progress(quiet),
        say=(lambda _: None) if quiet else note,
    )
    emit_results(results, json, show_study, out)
