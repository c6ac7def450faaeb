"""`perimetry bench controls`: whether a meter's success survives the controls of a sceptic."""

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

__all__ = ["controls"]


def controls(
    meter: Annotated[Path, Parameter(help="The meter: a folder that `perimetry calibrate` or the demo wrote.")],
    *,
    preset: Annotated[
        str | None,
        Parameter(help="quick: few texts, wide intervals, minutes; full, if not given: for reported numbers."),
    ] = None,
    out: Out = Path("runs/controls"),
    text: Annotated[
        str | None, Parameter(help="Held-out clean text; the test split of wikipedia if not given.")
    ] = None,
    fit_text: Annotated[
        str | None,
        Parameter(help="Clean text that the meters of the controls are fitted on; that of the meter if not given."),
    ] = None,
    n: Annotated[int | None, Parameter(help="Clean passages that get twins with typing errors.")] = None,
    seed: Annotated[int | None, Parameter(help="Seed of the texts and of what is untrained.")] = None,
    config: ConfigFile = None,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """What must lose, loses; where nothing is to be found, nothing is found; a row a control, and whether it holds.

    False concepts against their oracle; the trained SAE against one that learned nothing, against a permuted decoder and
    in an untrained language model; clean text against clean text, shuffled labels, uniform p-values. Each part is kept in
    OUT/controls as soon as it is measured: killed, the same command goes on with the next one.
    """
    from perimetry.config import build, load_values
    from perimetry.pipeline.controls import run_controls
    from perimetry.pipeline.controls_config import ControlsConfig, with_control_preset
    from perimetry.pipeline.controls_table import show_controls
    from perimetry.runtime import RuntimeConfig, start
    from perimetry.shift.loading import load_meter

    given = {"text": text, "fit_text": fit_text, "passages": n, "seed": seed}
    values = load_values(section="controls", file=config, overrides=given)
    settings = build(ControlsConfig, with_control_preset(values, preset), "configuration [controls]")
    runtime = start(RuntimeConfig.model_validate({"device": device, "threads": threads}))
    flags = {"--preset": preset, "--text": text, "--fit-text": fit_text, "--n": n, "--seed": seed, "--config": config}
    results = run_controls(
        load_meter(meter, runtime=runtime),
        settings,
        out,
        command=command_line(["perimetry", "bench", "controls", meter], flags, out),
        progress=wants_progress(quiet),
        say=(lambda _: None) if quiet else note,
    )
    emit_results(results, json, show_controls, out)
