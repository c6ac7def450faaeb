"""`perimetry study masking`: does masking the training text make better dictionaries?"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

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

__all__ = ["masking"]


def masking(
    *,
    out: Out = Path("runs/masking"),
    preset: Annotated[
        str,
        Parameter(
            help="full (an hour or two on two cores), paper (the published size, for a GPU), quick (looks whether anything is wrong) or "
            "tiny (for tests: numbers mean nothing)."
        ),
    ] = "full",
    model: Annotated[str | None, Parameter(help="Asset name, local folder or hub id.")] = None,
    text: Annotated[str | None, Parameter(help="Training text: asset name, .jsonl or folder.")] = None,
    config: ConfigFile = None,
    device: Device = "auto",
    dtype: DtypeFlag = "auto",
    threads: Threads = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Dictionaries of plain and of masked text, with three controls, over counts and seeds: absorption, probing, fidelity, probing out of distribution.

    The published comparison with intervals. Killed at any moment, the same command continues and ends with the same numbers.
    """
    from perimetry.config import build, load_values
    from perimetry.pipeline.masking import run_masking
    from perimetry.pipeline.masking_config import MaskingStudyConfig, with_masking_preset
    from perimetry.pipeline.masking_table import show_masking
    from perimetry.runtime import RuntimeConfig, start

    values = load_values(section="masking", file=config, overrides={"model": model, "text": text})
    settings = build(MaskingStudyConfig, with_masking_preset(values, preset), "configuration [masking]")
    runtime = start(RuntimeConfig.model_validate({"device": device, "dtype": dtype, "threads": threads}))
    flags = {"--preset": preset, "--model": model, "--text": text, "--config": config}
    results = run_masking(
        settings,
        out,
        runtime,
        command=command_line(["perimetry", "study", "masking"], flags, out),
        progress=wants_progress(quiet),
        say=(lambda _: None) if quiet else note,
    )
    emit_results(results, json, show_masking, out)
