"""`perimetry bench`: measure a meter on named suites."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from perimetry.cli.common import ConfigFile, Device, Json, Out, Quiet, Threads, emit, note, wants_progress

__all__ = ["app"]

app = App(name="bench", help="Measure a meter on named suites.")


@app.command
def shift(
    meter: Annotated[Path, Parameter(help="The meter: a folder that `perimetry calibrate` or the demo wrote.")],
    *,
    suite: Annotated[list[str] | None, Parameter(help="Suites by name, a .jsonl of your own, or all.")] = None,
    out: Out = Path("runs/bench"),
    text: Annotated[str, Parameter(help="Held-out clean text that the suites are built from.")] = "wikipedia",
    n: Annotated[int | None, Parameter(help="Clean passages of each dial suite.")] = None,
    seed: Annotated[int | None, Parameter(help="Seed of the suites.")] = None,
    config: ConfigFile = None,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """AUROC, FPR at 95 % TPR and TPR at 1 % FPR of every detector and baseline, with intervals by pair."""
    from perimetry.config import load_config
    from perimetry.pipeline.bench import BenchConfig, run_bench
    from perimetry.pipeline.table import show_rows
    from perimetry.runtime import RuntimeConfig, start
    from perimetry.shift.loading import load_meter

    settings = load_config(
        BenchConfig,
        section="bench",
        file=config,
        overrides={"suites": tuple(suite) if suite else None, "text": text, "passages": n, "seed": seed},
    )
    runtime = start(RuntimeConfig.model_validate({"device": device, "threads": threads}))
    readers = [load_meter(meter, runtime=runtime)]
    results = run_bench(readers, settings, out, command="perimetry bench shift", progress=wants_progress(quiet))

    def human() -> None:
        show_rows(results)
        note(f"{out / 'results.json'} and {out / 'report.html'}")

    emit(results, json, human)
