"""`perimetry robustify`: tune a model so that its limit moves outwards."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from perimetry.cli.common import (
    ConfigFile,
    Device,
    Json,
    Out,
    Quiet,
    Threads,
    command_line,
    emit,
    note,
    wants_progress,
)

if TYPE_CHECKING:
    from perimetry.pipeline.robustify_config import RobustifyConfig

__all__ = ["robustify"]


def robustify(
    *,
    meter: Annotated[Path, Parameter(help="The meter: its model is tuned, its tap and SAE shape the loss.")],
    out: Out = Path("runs/robustify"),
    model: Annotated[str | None, Parameter(help="Where the model lies, if not where the meter was made.")] = None,
    preset: Annotated[
        str,
        Parameter(help="full, quick (looks whether anything is wrong) or tiny (for tests: numbers mean nothing)."),
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
    """Fine-tune a model on corrupted text, by a loss that a meter shapes, and measure on held-out text what it gained and cost.

    Writes a peft adapter with a card to OUT/adapter; `perimetry score --adapter` and `perimetry bench shift --adapter` use it.
    Killed at any moment, the same command goes on and ends with the same bits.
    """
    from perimetry.config import build, load_values
    from perimetry.pipeline.robustify import run_robustify
    from perimetry.pipeline.robustify_config import RobustifyConfig, with_robustify_preset
    from perimetry.pipeline.robustify_table import TuneBar, show_robustify
    from perimetry.runtime import RuntimeConfig, start
    from perimetry.shift.loading import load_meter

    values = load_values(section="robustify", file=config, overrides={"text": text})
    settings = build(RobustifyConfig, with_robustify_preset(values, preset), "configuration [robustify]")
    runtime = start(RuntimeConfig.model_validate({"device": device, "threads": threads}))
    flags = {"--meter": meter, "--model": model, "--preset": preset, "--text": text, "--config": config}
    shown = wants_progress(quiet)
    with TuneBar(settings.tune.updates, shown=shown) as bar:
        results = run_robustify(
            load_meter(meter, runtime=runtime, model=model),
            settings,
            out,
            command=command_line(["perimetry", "robustify"], flags, out),
            progress=False,
            say=(lambda _: None) if quiet else note,
            shown=bar.step if shown or quiet else _line(settings),
        )
    emit(results, json, lambda: _show(results, out, show_robustify))


def _line(settings: "RobustifyConfig") -> Any:
    """Where there is no terminal, a line a look."""
    from perimetry.pipeline.robustify_table import terms_of

    def say(line: dict[str, Any]) -> None:
        if "guard_clean" in line:
            note(f"     update {line['step']} of {settings.tune.updates}: {terms_of(line)}")

    return say


def _show(results: dict[str, Any], out: Path, show: Any) -> None:
    show(results)
    note(f"{out / 'adapter'}; try: perimetry score METER --adapter {out / 'adapter'} 'some text'")
