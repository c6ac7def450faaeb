"""`perimetry study robustness`: does tuning move the limit, and is it the meter that moved it?"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from perimetry.cli.common import (
    ConfigFile,
    Device,
    Json,
    Out,
    Quiet,
    Threads,
    command_line,
    emit_results,
    note,
    wants_progress,
)

__all__ = ["robustness"]


def robustness(
    *,
    meter: Annotated[Path, Parameter(help="The meter: its model is tuned, its tap and SAE shape the loss.")],
    judge: Annotated[
        list[Path] | None,
        Parameter(help="More meters of the same model, with SAEs of other seeds and layers, that judge every arm."),
    ] = None,
    out: Out = Path("runs/robustness"),
    preset: Annotated[
        str,
        Parameter(
            help="full (hours on two cores), quick (looks whether anything is wrong) or tiny (for tests: numbers mean nothing)."
        ),
    ] = "full",
    text: Annotated[
        str | None, Parameter(help="Clean text: asset name, .jsonl, .txt or folder; split by document.")
    ] = None,
    config: ConfigFile = None,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tune a model in arms that differ in one thing each, controls among them, and judge each on held-out text, by other meters, by questions and refusals.

    Killed at any moment, the same command continues and ends with the same numbers.
    """
    from perimetry.config import build, load_values, over
    from perimetry.pipeline.robustness import run_robustness
    from perimetry.pipeline.robustness_config import RobustnessConfig, with_robustness_preset
    from perimetry.pipeline.robustness_table import show_robustness
    from perimetry.runtime import RuntimeConfig, start
    from perimetry.shift.loading import load_meter

    values = load_values(section="robustness", file=config, overrides={})
    values = over(values, {"data": {"text": text}} if text else {})
    settings = build(RobustnessConfig, with_robustness_preset(values, preset), "configuration [robustness]")
    runtime = start(RuntimeConfig.model_validate({"device": device, "threads": threads}))
    own = load_meter(meter, runtime=runtime)
    judges = {f"judge {number}": load_meter(path, lm=own.lm) for number, path in enumerate(judge or (), 1)}
    words = [
        "perimetry",
        "study",
        "robustness",
        "--meter",
        meter,
        *(w for path in judge or () for w in ("--judge", path)),
    ]
    results = run_robustness(
        settings,
        own,
        judges,
        out,
        command=command_line(words, {"--preset": preset, "--text": text, "--config": config}, out),
        progress=wants_progress(quiet),
        say=(lambda _: None) if quiet else note,
    )
    emit_results(results, json, show_robustness, out)
