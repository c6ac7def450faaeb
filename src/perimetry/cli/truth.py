"""`perimetry study truth`: dictionaries judged where the features are known."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from perimetry.cli.common import ConfigFile, Json, Out, Quiet, Threads, command_line, emit_results, note, wants_progress

__all__ = ["truth"]


def truth(
    *,
    out: Out = Path("runs/truth"),
    preset: Annotated[
        str,
        Parameter(
            help="full (minutes on two cores), published (the published world and length: days), quick (looks whether anything "
            "is wrong) or tiny (for tests: numbers mean nothing)."
        ),
    ] = "full",
    config: ConfigFile = None,
    threads: Threads = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Synthetic worlds of known features: does the published order of architectures come out, and does breaking co-occurrence reduce absorption?

    No language model is needed. Killed at any moment, the same command continues and ends with the same numbers.
    """
    from perimetry.config import build, load_values
    from perimetry.pipeline.truth import TruthStudyConfig, run_truth, with_truth_preset
    from perimetry.pipeline.truth_table import show_truth
    from perimetry.runtime import RuntimeConfig, start

    values = load_values(section="truth", file=config, overrides={})
    settings = build(TruthStudyConfig, with_truth_preset(values, preset), "configuration [truth]")
    start(RuntimeConfig.model_validate({"device": "cpu", "threads": threads}))
    results = run_truth(
        settings,
        out,
        command=command_line(["perimetry", "study", "truth"], {"--preset": preset, "--config": config}, out),
        progress=wants_progress(quiet),
        say=(lambda _: None) if quiet else note,
    )
    emit_results(results, json, show_truth, out)
