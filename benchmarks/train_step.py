"""How fast an SAE learns: tokens per second of one whole training step, beside other libraries and beside the matrix
product that none of them avoids.

A step is everything that a library does with a batch: forward, backward, clipping, Adam, unit decoder rows, counts of dead
latents. The yardstick is the encoder's product alone, `acts @ W_enc.T` into memory that is there already, in float32
and in bfloat16. `perimetry_dense` is perimetry's step by autograd.

Other libraries run in their own environments: make them with `python benchmarks/peers/environments.py --folder DIR` and
give --peers DIR. Each library is a process of its own, all alive at once, and they take turns: one computes, the others
wait. Without --peers only perimetry and the products run.

Sections: `speed` (TopK at several sizes), `architectures` (every architecture of perimetry at the first size), `memory` (peak
of a step beyond the libraries, in a process of its own), `training` (a whole short training: seconds to reach a fraction
of variance unexplained on rows that were held out, at the learning rate that serves each library best). Activations are
planted (a part of low rank, sums of a few directions, noise) or, where --store has the width, rows of a store.

With --out, what is measured is kept beside that file, part by part: the same command goes on after a kill.
"""

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import perimetry
from _arms import ARMS, HEADLINE, LIMITS, MAIN, PACKAGES, SIZES, TINY, TINY_MEMORY, TRAINING, Size, available, groups
from _bench import Bench
from _common import Spread, finish, parser, ratio, row, runtime_of, spread
from _crew import Crew, Turns, WorkerFailed
from _kept import Kept
from _training import train_whole
from perimetry.runtime import fingerprint
from perimetry.sae import ARCHITECTURES

SECTIONS = ("speed", "architectures", "memory", "training")
HELD = 3
"""Parameters and the two moments of Adam: what a step holds at least, beside the batch."""
WIDEST = {"temporal": 4096}
"""Widths beyond which an architecture is not measured: attention over codes has matrices of width x width."""


def rows_of(turns: Turns, size: Size, section: str, architecture: str = "topk") -> list[dict[str, Any]]:
    """Speeds, and ratios within each turn: of perimetry to the faster product, of the others to perimetry."""
    seconds = {arm: taken for arm, taken in turns.seconds.items() if arm not in turns.failed}
    l0 = turns.active.get("perimetry")
    about = {"section": section, "architecture": architecture, **size._asdict(), "l0": round(l0 or 0.0, 1)}
    speeds = {arm: spread([size.batch / s for s in taken]) for arm, taken in seconds.items()}
    rows = [row("tokens_per_s", arm, "", speed, **about) for arm, speed in speeds.items()]
    if "perimetry" not in seconds:
        return rows
    yardstick = max(LIMITS, key=lambda name: speeds[name].median)
    rows.append(row("time_ratio", "perimetry", yardstick, ratio(seconds, "perimetry", yardstick), **about))
    others = [arm for arm in seconds if arm not in LIMITS and arm != "perimetry"]
    return rows + [row("time_ratio", arm, "perimetry", ratio(seconds, arm, "perimetry"), **about) for arm in others]


def turns_of(
    bench: Bench, names: Sequence[str], size: Size, repeats: int, architecture: str, section: str
) -> list[dict[str, Any]]:
    """Rows of some arms that take turns."""
    jobs = {n: (ARMS[n].environment, bench.job(ARMS[n], size, architecture=architecture)) for n in names}
    turns = bench.crew.take_turns(jobs, repeats)
    for arm, reason in turns.failed.items():
        bench.skip(section, arm, size, reason, architecture)
    return rows_of(turns, size, section, architecture)


def beside(bench: Bench, size: Size, architecture: str, first: bool) -> list[dict[str, Any]]:
    """One architecture beside the others at one size, those together that the memory holds."""
    wanted = tuple(arm for arm in ARMS if arm != "perimetry_dense") if first else MAIN
    names = bench.present(wanted if architecture == "topk" else ())
    together, left_out = groups(names, size, int(0.85 * available(bench.device)))
    for arm, reason in left_out.items():
        bench.skip("speed", arm, size, reason)
    repeats = bench.arguments.repeats if first else max(1, min(3, bench.arguments.repeats))
    return [line for some in together for line in turns_of(bench, some, size, repeats, architecture, section="speed")]


def speed(bench: Bench, sizes: Sequence[Size], architecture: str) -> list[dict[str, Any]]:
    """TopK, or the one architecture that was asked for, beside the others at several sizes."""
    rows: list[dict[str, Any]] = []
    for size in sizes:
        measure = partial(beside, bench, size, architecture, first=size == sizes[0])
        rows += bench.part(measure, "speed", architecture, *size)
    return rows


def sized(size: Size, architecture: str) -> Size:
    """The size at which an architecture is measured."""
    return size._replace(width=min(size.width, WIDEST.get(architecture, size.width)))


def architectures(bench: Bench, size: Size, names: Sequence[str]) -> list[dict[str, Any]]:
    """Every architecture of perimetry: its own step, its dense reference and the products."""
    rows: list[dict[str, Any]] = []
    arms = ("perimetry", *LIMITS, "perimetry_dense")
    for name in names:
        repeats = max(1, min(3, bench.arguments.repeats))
        rows += bench.part(
            partial(turns_of, bench, arms, sized(size, name), repeats, name, "architectures"),
            *("architectures", name, *sized(size, name)),
        )
    return rows


def peak(bench: Bench, size: Size, arm: str, architecture: str) -> list[dict[str, Any]]:
    """Peak bytes of a step of one arm, in a process of its own."""
    worker = bench.crew.start(ARMS[arm].environment)
    try:
        found = worker.ask("memory", job=bench.job(ARMS[arm], size, architecture=architecture).to_json())
    except WorkerFailed as error:
        bench.skip("memory", arm, size, str(error), architecture)
        return []
    finally:
        worker.close()
    about = {"section": "memory", "architecture": architecture, **size._asdict(), "l0": 0.0}
    about |= {"parameter_bytes": found["parameter_bytes"], "batch_bytes": 4 * size.batch * size.d_model}
    least = HELD * about["parameter_bytes"] + about["batch_bytes"]
    method = {"method": found["method"]}
    return [
        row("peak_bytes", arm, "", spread([float(found["peak_bytes"])]), **about) | method,
        row("peak_ratio", arm, "least", spread([found["peak_bytes"] / least]), **about) | method,
    ]


def memory(bench: Bench, size: Size, names: Sequence[str]) -> list[dict[str, Any]]:
    """Peak bytes of a step beyond the libraries, beside what a step holds at least."""
    arms = bench.present(("perimetry", *(() if bench.tiny else ("perimetry_dense", *MAIN))))
    rows: list[dict[str, Any]] = []
    for arm, architecture in [(a, "topk") for a in arms] + [("perimetry", n) for n in names if n != "topk"]:
        own = sized(size, architecture)
        rows += bench.part(partial(peak, bench, own, arm, architecture), "memory", arm, architecture, *own)
    return rows


def measure(bench: Bench) -> list[dict[str, Any]]:
    """The sections that were asked for."""
    arguments = bench.arguments
    one, chosen = arguments.architecture, arguments.only
    headline = TINY if bench.tiny else HEADLINE
    rows: list[dict[str, Any]] = []
    if "speed" in chosen:
        several = not (arguments.quick or bench.tiny)
        rows += speed(bench, SIZES if several else (headline,), one or "topk")
    if "architectures" in chosen:
        rows += architectures(bench, headline, [one] if one else list(ARCHITECTURES))
    if "memory" in chosen:
        rows += memory(
            bench, TINY_MEMORY if bench.tiny else headline, [one] if one else () if bench.tiny else list(ARCHITECTURES)
        )
    if "training" in chosen:
        size, steps = (TINY, 8) if bench.tiny else (TRAINING, arguments.steps)
        rows += bench.part(partial(train_whole, bench, size, steps), "training", steps, arguments.seeds, *size)
    return rows


def parse() -> argparse.Namespace:
    """The flags."""
    found = parser(__doc__)
    found.add_argument("--architecture", choices=sorted(ARCHITECTURES), help="this one of perimetry only")
    found.add_argument("--peers", type=Path, help="folder of the environments of the other libraries")
    found.add_argument("--store", type=Path, help="activations of this store in place of planted ones")
    found.add_argument("--only", nargs="+", choices=SECTIONS, help="these sections (default: all; with --quick: speed)")
    found.add_argument("--steps", type=int, default=250, help="steps of the whole training (default: 250)")
    found.add_argument("--seeds", type=int, default=1, help="seeds of perimetry's whole training (default: 1)")
    arguments = found.parse_args()
    arguments.only = arguments.only or (SECTIONS[:1] if arguments.quick else SECTIONS)
    return arguments


def headline_speeds(rows: Sequence[dict[str, Any]], size: Size, architecture: str) -> dict[str, float]:
    """The two numbers that matter most, where they were measured."""
    medians = {
        line["arm"]: Spread(line["estimate"], line["low"], line["high"], line["n"]).median
        for line in rows
        if line["metric"] == "tokens_per_s" and line["section"] in ("speed", "architectures")
        if line["architecture"] == architecture and Size(*(line[f] for f in Size._fields)) == size
    }
    if "perimetry" not in medians:
        return {}
    fastest = max(medians[name] for name in LIMITS)
    return {"perimetry_tokens_per_s": medians["perimetry"], "gemm_tokens_per_s": fastest}


def main() -> None:
    """Measure and print."""
    arguments = parse()
    device = runtime_of(arguments).device
    same = {"benchmark": "train_step", "version": perimetry.__version__, "hardware": fingerprint()}
    same |= {name: getattr(arguments, name) for name in ("device", "repeats", "threads", "tiny", "quick")}
    kept = Kept(arguments.out, same)
    with tempfile.TemporaryDirectory() as folder, Crew(arguments.peers, torch.get_num_threads()) as crew:
        bench = Bench(arguments, crew, Path(folder), device, kept)
        rows = measure(bench)
        libraries = crew.versions(PACKAGES) if arguments.peers is not None else {}
    two = headline_speeds(rows, TINY if arguments.tiny else HEADLINE, arguments.architecture or "topk")
    more = {"libraries": libraries, "data": sorted(bench.names), "skipped": bench.skipped}
    finish(arguments, "train_step", rows, **two, **more)
    kept.close()


if __name__ == "__main__":
    main()
