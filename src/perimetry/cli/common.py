"""What the commands share: flag types, output on the right stream, reading of inputs."""

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

__all__ = [
    "Adapter",
    "ConfigFile",
    "Device",
    "DtypeFlag",
    "Json",
    "Out",
    "Quiet",
    "Threads",
    "command_line",
    "emit",
    "emit_results",
    "json_line",
    "note",
    "wants_progress",
]

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON object on standard output.")]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative="", help="No progress bars.")]
ConfigFile = Annotated[
    Path | None, Parameter(name="--config", help="TOML file; its section of the command's name gives defaults.")
]
Out = Annotated[Path, Parameter(name=["--out", "-o"], help="Folder to write to.")]
Device = Annotated[str, Parameter(name="--device", help="auto, cpu, cuda, cuda:1 ...")]
DtypeFlag = Annotated[
    str, Parameter(name="--dtype", help="auto, float32 or bfloat16: what the language model computes in.")
]
Adapter = Annotated[
    Path | None,
    Parameter(
        name="--adapter",
        help="Adapter to put on the model: a folder that `perimetry robustify` wrote, or peft. Read by the model's own normal.",
    ),
]
Threads = Annotated[int, Parameter(name="--threads", help="Threads of CPU operations; 0 leaves the default.")]


def wants_progress(quiet: bool) -> bool:
    """Progress bars belong on a terminal; in a log they would be noise."""
    return not quiet and sys.stderr.isatty()


def note(text: str) -> None:
    """One line for a person, on standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def command_line(words: Iterable[object], flags: Mapping[str, object], out: Path) -> str:
    """The command as it was called, for the results: `words`, the flags that were given, and where it wrote.

    >>> command_line(["perimetry", "study"], {"--text": "my text.txt", "--model": None}, Path("runs/study"))
    "perimetry study --text 'my text.txt' --out runs/study"
    """
    given = [part for flag, value in flags.items() if value is not None for part in (flag, value)]
    return shlex.join(str(word) for word in (*words, *given, "--out", out))


def emit_results(results: dict[str, Any], as_json: bool, show: Callable[[dict[str, Any]], None], out: Path) -> None:
    """Print results as JSON where asked, else let `show` print them and say where they and their report lie."""

    def human() -> None:
        show(results)
        note(f"{out / 'results.json'} and {out / 'report.html'}")

    emit(results, as_json, human)


def json_line(value: Mapping[str, Any]) -> str:
    """One line of strict JSON in plain characters, or with escapes where standard output cannot write those."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False)
    return line


def emit(value: Mapping[str, Any], as_json: bool, human: Callable[[], None]) -> None:
    """Print `value` as one JSON object where asked, else let `human` print it for a person."""
    if as_json:
        print(json_line(value))  # noqa: T201
    else:
        human()
