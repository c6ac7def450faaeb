"""`perimetry bench`: measure a meter on named suites."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from perimetry.cli.common import (
    Adapter,
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
from perimetry.cli.controls import controls

if TYPE_CHECKING:
    from perimetry.runtime import Runtime
    from perimetry.shift.meter import Meter

__all__ = ["app"]

app = App(name="bench", help="Measure a meter on named suites.")
app.command(controls)


@app.command
def shift(
    meter: Annotated[
        Path,
        Parameter(
            help="The meter: a folder that `perimetry calibrate` or the demo wrote; of a meter over several layers, each."
        ),
    ],
    *,
    also: Annotated[
        list[Path] | None, Parameter(help="More meters of the same model, with SAEs of other seeds or layers.")
    ] = None,
    adapter: Adapter = None,
    suite: Annotated[list[str] | None, Parameter(help="Suites by name, a .jsonl of your own, or all.")] = None,
    preset: Annotated[
        str | None,
        Parameter(
            help="quick: few texts, wide intervals, minutes; full: under an hour. With --suite all, full if not given."
        ),
    ] = None,
    out: Out = Path("runs/bench"),
    text: Annotated[
        str | None, Parameter(help="Held-out clean text that the suites are built from; wikipedia if not given.")
    ] = None,
    n: Annotated[int | None, Parameter(help="Clean passages of each dial suite.")] = None,
    seed: Annotated[int | None, Parameter(help="Seed of the suites.")] = None,
    config: ConfigFile = None,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """AUROC, FPR at 95 % TPR and TPR at 1 % FPR of every detector and baseline, with intervals by pair.

    The rows are those of the first meter's layer, over the seeds; other layers are compared beside them. Each suite is kept in OUT/suites as soon as it is measured: killed, the same command goes on with the next one.
    """
    from perimetry.config import build, load_values
    from perimetry.pipeline.bench import run_bench
    from perimetry.pipeline.bench_config import BenchConfig, with_preset
    from perimetry.pipeline.table import show_rows
    from perimetry.runtime import RuntimeConfig, start

    given = {"suites": tuple(suite) if suite else None, "text": text, "passages": n, "seed": seed}
    values = load_values(section="bench", file=config, overrides=given)
    settings = build(BenchConfig, with_preset(values, preset), "configuration [bench]")
    runtime = start(RuntimeConfig.model_validate({"device": device, "threads": threads}))
    readers = _readers((meter, *(also or ())), runtime, adapter)
    words = ["perimetry", "bench", "shift", str(meter), *(w for path in also or () for w in ("--also", str(path)))]
    words += [w for name in suite or () for w in ("--suite", name)]
    flags = {"--preset": preset, "--adapter": adapter, "--text": text, "--n": n, "--seed": seed, "--config": config}
    results = run_bench(
        readers,
        settings,
        out,
        command=command_line(words, flags, out),
        progress=wants_progress(quiet),
        say=(lambda _: None) if quiet else note,
    )
    emit_results(results, json, show_rows, out)


def _readers(paths: Sequence[Path], runtime: "Runtime", adapter: Path | None) -> "list[Meter]":
    """The meters of some folders on one language model; of a meter over several layers, that of each."""
    from perimetry.shift.meter import Meter
    from perimetry.shift.multi_loading import load_reader

    found: list[Meter] = []
    for path in paths:
        reader = load_reader(path, runtime=runtime, lm=found[0].lm if found else None, adapter=adapter)
        found += [reader] if isinstance(reader, Meter) else reader.meters.values()
    return found
