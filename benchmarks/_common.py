"""What the benchmarks share: flags, interleaved repeats, rows in the results format, a table for a person.

Speeds of one machine at one moment say little, so every benchmark gives ratios within one run: the things that are
compared take turns, and a ratio is taken within each turn.
"""

import argparse
import datetime
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

import perimetry
from perimetry.runtime import Runtime, RuntimeConfig, fingerprint, start
from perimetry.storage import write_json

__all__ = ["Spread", "finish", "parser", "ratio", "row", "runtime_of", "said", "spread", "take_turns"]

METHOD = "median over turns that alternate; low and high are the quartiles"


class Spread(NamedTuple):
    """Several measurements of the same thing."""

    median: float
    """The middle one."""
    low: float
    """Lower quartile."""
    high: float
    """Upper quartile."""
    n: int
    """Number of measurements."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """The flags that every benchmark takes."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    found.add_argument("--quick", action="store_true", help="the one size that matters most")
    found.add_argument("--tiny", action="store_true", help="a size that only shows that the script runs")
    found.add_argument("--out", type=Path, help="write the JSON to this file as well")
    found.add_argument("--repeats", type=int, default=7, help="turns (default: 7)")
    found.add_argument("--device", default="auto", help="auto, cpu, cuda ... (default: auto)")
    found.add_argument("--dtype", default="auto", help="what the language model computes in (default: auto)")
    found.add_argument("--threads", type=int, default=0, help="threads of CPU operations; 0 leaves the default")
    return found


def runtime_of(arguments: argparse.Namespace) -> Runtime:
    """Device, dtype and threads as the flags say."""
    flags = {"device": arguments.device, "dtype": arguments.dtype, "threads": arguments.threads}
    return start(RuntimeConfig.model_validate(flags))


def take_turns(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call in each turn; every call runs once before the clock starts."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return Spread(statistics.median(values), low, high, len(values))


def ratio(seconds: Mapping[str, Sequence[float]], of: str, to: str) -> Spread:
    """Time of `of` over time of `to`, taken within each turn."""
    return spread([a / b for a, b in zip(seconds[of], seconds[to], strict=True)])


def row(metric: str, arm: str, against: str, measured: Spread, **about: Any) -> dict[str, Any]:
    """One measurement, flat."""
    return {
        "metric": metric,
        "arm": arm,
        "against": against,
        "estimate": measured.median,
        "low": measured.low,
        "high": measured.high,
        "n": measured.n,
        "seed": 0,
        "method": METHOD,
    } | about


def said(words: Sequence[str]) -> str:
    """A command as it can be shown: of an absolute path only its name.

    >>> said(["bench.py", "--peers", "/home/me/peers"])
    'bench.py --peers peers'
    """
    return " ".join(Path(word).name if Path(word).is_absolute() else word for word in words)


def finish(arguments: argparse.Namespace, name: str, rows: list[dict[str, Any]], **more: Any) -> None:
    """Print and write what was measured."""
    results = {
        "command": said(["python", f"benchmarks/{name}.py", *sys.argv[1:]]),
        "version": perimetry.__version__,
        "hardware": fingerprint(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": rows,
    } | more
    if arguments.out is not None:
        write_json(arguments.out, results, indent=1)
    if arguments.json:
        print(json.dumps(results, allow_nan=False))
        return
    table = Table(title=f"{name}: {rows[0]['method']}", title_justify="left")
    fixed = ("metric", "arm", "against", "estimate", "low", "high", "n", "seed", "method")
    extra = [key for key in rows[0] if key not in fixed]
    for heading in (*extra, "metric", "arm", "against", "estimate", "low to high"):
        table.add_column(heading)
    for line in rows:
        box = f"{line['low']:.4g} to {line['high']:.4g}"
        cells = [str(line[key]) for key in (*extra, "metric", "arm", "against")]
        table.add_row(*cells, f"{line['estimate']:.4g}", box)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
