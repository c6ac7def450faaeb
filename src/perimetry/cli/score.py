"""`perimetry score`: how far a prompt lies outside what the model knows."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from perimetry.cli.common import Adapter, Device, DtypeFlag, Json, Quiet, Threads, json_line, note, wants_progress

if TYPE_CHECKING:
    from perimetry.shift.reading import Reading

__all__ = ["score"]

Alpha = Annotated[float, Parameter(help="False-alarm rate on clean text; a prompt is flagged at p <= alpha.")]
BatchFdr = Annotated[
    float | None,
    Parameter(help="Flag by the false discovery rate of all prompts together (Benjamini-Hochberg); adds q."),
]
BatchMethod = Annotated[
    Literal["bh", "by"], Parameter(help="bh, or by (Benjamini-Yekutieli): valid however prompts depend, weaker.")
]


def score(
    meter: Annotated[Path, Parameter(help="The meter: a folder that `perimetry calibrate` or the demo wrote.")],
    *texts: Annotated[str, Parameter(help="Prompts to read.")],
    input: Annotated[
        Path | None,
        Parameter(help='JSONL file with lines {"id", "text"}; - is standard input.', allow_leading_hyphen=True),
    ] = None,
    json: Json = False,
    detectors: Annotated[str, Parameter(help="main, all, or names with commas (`nll,surprise.top10`).")] = "main",
    tokens: Annotated[bool, Parameter(negative="", help="Per-token text and scores in the JSON lines.")] = False,
    concepts: Annotated[bool, Parameter(negative="", help="Concepts with clean contexts in the JSON lines.")] = False,
    alpha: Alpha = 0.05,
    batch_fdr: BatchFdr = None,
    batch_method: BatchMethod = "bh",
    truncate: Annotated[bool, Parameter(negative="", help="Cut prompts that are longer than the context.")] = False,
    fail_on_alarm: Annotated[bool, Parameter(negative="", help="Exit with 1 when a prompt is flagged.")] = False,
    model: Annotated[str | None, Parameter(help="Where the model lies, if not where the meter was made.")] = None,
    adapter: Adapter = None,
    batch_tokens: Annotated[int, Parameter(help="Padded tokens of one forward pass.")] = 4096,
    device: Device = "auto",
    dtype: DtypeFlag = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> int:
    """Read prompts with a calibrated meter.

    Prints a reading for each text, or with --input FILE --json one JSON line each, in order: id, score, p_value,
    flagged, group, tokens_scored, truncated, scores; of a meter over several layers also taps. With --batch-fdr all prompts are read before the first is shown.
    """
    from perimetry.runtime import RuntimeConfig, start
    from perimetry.shift.discoveries import with_discoveries
    from perimetry.shift.multi_loading import load_reader
    from perimetry.ui import track

    _check_rate(batch_fdr)
    ids, prompts = _given(texts, input)
    runtime = start(RuntimeConfig.model_validate({"device": device, "threads": threads}))
    reader = load_reader(meter, runtime=runtime, model=model, dtype=dtype, adapter=adapter)
    found = reader.readings(
        prompts,
        ids=ids,
        detectors=detectors,
        alpha=alpha,
        truncate=truncate,
        batch_tokens=batch_tokens,
        explain=concepts or not json,
    )
    shown = wants_progress(quiet) and input is not None
    readings = track(found, "reading prompts", len(prompts), shown, lambda _: 1)
    if batch_fdr is not None:
        readings = with_discoveries(list(readings), batch_fdr, batch_method)
    flagged = False
    for reading, text in zip(readings, prompts, strict=True):
        flagged |= reading.flagged
        _show(reading, text, reading.to_json(tokens=tokens, concepts=concepts) if json else None)
    return int(fail_on_alarm and flagged)


def _show(reading: "Reading", text: str, line: dict[str, Any] | None) -> None:
    from perimetry.cli.show import show_reading

    if line is not None:
        print(json_line(line), flush=True)  # noqa: T201
    else:
        show_reading(reading, text)


def _check_rate(batch_fdr: float | None) -> None:
    from perimetry.errors import ConfigError

    if batch_fdr is not None and not 0 < batch_fdr < 1:
        raise ConfigError(f"--batch-fdr is {batch_fdr}; a share between 0 and 1 is wanted, such as 0.05")


def _given(texts: tuple[str, ...], input: Path | None) -> tuple[list[str], list[str]]:
    """Ids and texts of the prompts, from wherever they come."""
    from perimetry.errors import UsageError

    if bool(texts) == (input is not None):
        raise UsageError("give texts or --input FILE, one of the two; for example: perimetry score METER 'some text'")
    if input is None:
        return [str(i) for i in range(len(texts))], list(texts)
    ids, prompts = _read(input)
    if not prompts:
        note(f"{input} holds no line, so there is nothing to read")
    return ids, prompts


def _read(path: Path) -> tuple[list[str], list[str]]:
    from perimetry.assets.documents import read_jsonl

    documents = list(read_jsonl(sys.stdin.buffer if str(path) == "-" else path))
    return [d.id for d in documents], [d.text for d in documents]
