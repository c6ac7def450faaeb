"""`perimetry eval`: what dictionaries are worth, beside their controls and beside one another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from perimetry.cli.steering import steering

if TYPE_CHECKING:
    from perimetry.pipeline.evaluation_config import EvaluationConfig

__all__ = ["app", "evaluate"]

app = App(
    name="eval",
    help="What dictionaries are worth, beside their controls and beside one another; what a steering vector does.",
)
app.command(steering)


@app.default
def evaluate(
    sae: Annotated[
        list[Path], Parameter(help="Folders of dictionaries; the others are compared with the first, unit by unit.")
    ],
    *,
    suite: Annotated[
        list[str] | None,
        Parameter(
            help="fidelity, absorption, probing, ood_probing, ground_truth, stability, tpp, scr, or all; those of the preset if not given."
        ),
    ] = None,
    seeds: Annotated[
        int | None, Parameter(help="Draws of the rows of every probe, and dictionaries of ground_truth.")
    ] = None,
    preset: Annotated[
        str,
        Parameter(help="full, quick (looks whether anything is wrong) or tiny (for tests: numbers mean nothing)."),
    ] = "full",
    controls: Annotated[
        bool,
        Parameter(
            help="Measure an untrained dictionary, one with a frozen decoder and one of an untrained model beside each."
        ),
    ] = True,
    model: Annotated[str | None, Parameter(help="Language model; what the dictionaries say if not given.")] = None,
    out: Out = Path("runs/eval"),
    config: ConfigFile = None,
    device: Device = "auto",
    dtype: DtypeFlag = "auto",
    threads: Threads = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fidelity, absorption, probing in and out of distribution, known features, stability: each with intervals and controls.

    Each evaluation of each dictionary is kept in OUT/parts as soon as it is measured: killed, the same command goes on with the next one. What an
    evaluation cannot judge is said with its reason.
    """
    words = ["perimetry", "eval", *map(str, sae), *(w for name in suite or () for w in ("--suite", name))]
    words += [] if controls else ["--no-controls"]
    flags = {"--seeds": seeds, "--preset": preset, "--model": model, "--config": config}
    settings = _settings(suite, seeds, preset, config, controls=controls)

    from perimetry.pipeline.evaluation import run_evaluation
    from perimetry.pipeline.evaluation_table import show_evaluation
    from perimetry.runtime import RuntimeConfig, start

    runtime = start(RuntimeConfig.model_validate({"device": device, "dtype": dtype, "threads": threads}))
    results = run_evaluation(
        sae,
        settings,
        out,
        runtime,
        model=model,
        command=command_line(words, flags, out),
        progress=wants_progress(quiet),
        say=(lambda _: None) if quiet else note,
    )
    emit_results(results, json, show_evaluation, out)


def _settings(
    suite: list[str] | None, seeds: int | None, preset: str, config: Path | None, *, controls: bool
) -> "EvaluationConfig":
    """The configuration of preset, file, environment and flags."""
    from perimetry.config import build, load_values
    from perimetry.evals.sae import SAE_EVALS
    from perimetry.pipeline.evaluation_config import EvaluationConfig, with_evaluation_preset

    chosen = None if not suite else tuple(SAE_EVALS) if "all" in suite else tuple(suite)
    given = {"suites": chosen, "seeds": seeds, "controls": None if controls else ()}
    values = load_values(section="eval", file=config, overrides=given)
    return build(EvaluationConfig, with_evaluation_preset(values, preset), "configuration [eval]")
