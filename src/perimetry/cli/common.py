"""What the commands share: flag types, output on the right stream, reading of inputs."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

__all__ = [
    "ConfigFile",
    "Device",
    "DtypeFlag",
    "Json",
    "Out",
    "Quiet",
    "Threads",
    "emit",
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
Threads = Annotated[int, Parameter(name="--threads", help="Threads of CPU operations; 0 leaves the default.")]


def wants_progress(quiet: bool) -> bool:
    """Progress bars belong on a terminal; in a log they would be noise."""
    return not quiet and sys.stderr.isatty()


def note(text: str) -> None:
    """One line for a person, on standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


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
