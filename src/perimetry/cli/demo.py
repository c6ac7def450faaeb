"""`perimetry demo`: the main job from end to end, on a real model and real text."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from perimetry.cli.common import ConfigFile, Device, DtypeFlag, Json, Out, Quiet, Threads, emit, note, wants_progress

__all__ = ["demo"]


def demo(
    *,
    out: Out = Path("runs/demo"),
    preset: Annotated[
        str, Parameter(help="full (about ten minutes on two cores) or tiny (for tests: numbers mean nothing).")
    ] = "full",
    model: Annotated[str | None, Parameter(help="Asset name, local folder or hub id.")] = None,
    text: Annotated[str | None, Parameter(help="Clean text: asset name, .jsonl, .txt or folder.")] = None,
    config: ConfigFile = None,
    device: Device = "auto",
    dtype: DtypeFlag = "auto",
    threads: Threads = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn a model's concepts, calibrate what is normal, measure typos and jailbreaks, write a report.

    Killed at any moment, the same command continues.
    """
    from perimetry.config import load_config
    from perimetry.pipeline.demo import PRESETS, DemoConfig, next_commands, run_demo
    from perimetry.pipeline.table import show_rows, show_verdicts
    from perimetry.runtime import RuntimeConfig, start

    if preset not in PRESETS:
        from perimetry.errors import UnknownName

        raise UnknownName("preset", preset, PRESETS)
    settings = load_config(
        DemoConfig, section="demo", file=config, overrides={**PRESETS[preset], "model": model, "text": text}
    )
    runtime = start(RuntimeConfig.model_validate({"device": device, "dtype": dtype, "threads": threads}))
    results = run_demo(settings, out, runtime, progress=wants_progress(quiet), say=note)

    def human() -> None:
        show_rows(results)
        show_verdicts(results)
        note(f"\nreport: {out / 'report.html'}\n\nwhat to try next:")
        for command in next_commands(out):
            note(f"  {command}")

    emit(results, json, human)
