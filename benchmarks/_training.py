"""A whole short training of each arm on the same rows, and the seconds that each needs to reach an error."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from _arms import ARMS, MAIN, OURS, Size
from _bench import Bench
from _common import row, spread
from _crew import WorkerFailed

__all__ = ["FACTORS", "TARGETS", "Point", "reached", "train_whole", "tune"]

FACTORS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Learning rates that are tried, as multiples of the rule."""

TARGETS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05)
"""Fractions of variance unexplained; those that at least one arm passes after its first look are reported."""
POINTS = 25
"""How often a training is looked at."""


class Point(NamedTuple):
    """One look at a training."""

    steps: int
    """Steps done."""
    seconds: float
    """Time of those steps, without reading rows and without looking."""
    fvu: float
    """Fraction of variance unexplained on rows that were held out."""


def reached(curve: Sequence[Point], target: float) -> float | None:
    """Seconds until the error is at most `target`, between two looks by a straight line; None where it never is."""
    for before, after in pairwise(curve):
        if before.fvu > target >= after.fvu:
            share = (before.fvu - target) / (before.fvu - after.fvu)
            return before.seconds + share * (after.seconds - before.seconds)
    return None


def base_of(name: str) -> str:
    """The arm by which the learning rate of an arm is chosen: its library as it is by default."""
    return ARMS[name].library


def tune(bench: Bench, size: Size, steps: int, names: Sequence[str]) -> dict[str, float]:
    """The factor on the learning rate that serves each library best, by the last error of a smaller training.

    What is best depends on how a library scales and starts its weights, so one rate for all would compare that.
    """
    small = Size(max(1, size.batch // 4), size.d_model, max(size.k, size.width // 4), size.k)
    found: dict[str, float] = {}
    for name in dict.fromkeys(base_of(n) for n in names):
        worker, ends = bench.crew.of(ARMS[name].environment), {}
        for factor in FACTORS[:2] if bench.tiny else FACTORS:
            job = bench.job(ARMS[name], small, rows=steps, steps=steps)
            try:
                worker.ask("open", arm=name, job={**job.to_json(), "lr": factor * job.rate})
                ends[factor] = worker.ask("train", arm=name, steps=steps)["fvu"]
                worker.ask("close", arm=name)
            except WorkerFailed as error:
                bench.skip("training", name, small, str(error))
        finite = {factor: end for factor, end in ends.items() if math.isfinite(end)}
        found[name] = min(finite, key=finite.__getitem__) if finite else FACTORS[0]
    return found


def curves(
    bench: Bench, size: Size, steps: int, seed: int, names: Sequence[str], factors: Mapping[str, float]
) -> dict[str, list[Point]]:
    """Trainings by turns: each arm some steps, then the next one."""
    piece = max(1, steps // POINTS)
    found: dict[str, list[Point]] = {}
    for name in names:
        job = bench.job(ARMS[name], size, rows=steps, steps=steps, seed=seed)
        rate = factors[base_of(name)] * job.rate
        try:
            bench.crew.of(ARMS[name].environment).ask("open", arm=name, job={**job.to_json(), "lr": rate})
            found[name] = []
        except WorkerFailed as error:
            bench.skip("training", name, size, str(error))
    done = 0
    while done < steps:
        now = min(piece, steps - done)
        done += now
        for name, curve in found.items():
            answer = bench.crew.of(ARMS[name].environment).ask("train", arm=name, steps=now)
            seconds = answer["seconds"] + (curve[-1].seconds if curve else 0.0)
            curve.append(Point(done, seconds, answer["fvu"]))
    for name in found:
        bench.crew.of(ARMS[name].environment).ask("close", arm=name)
    return found


def train_whole(bench: Bench, size: Size, steps: int) -> list[dict[str, Any]]:
    """Rows of the curves and of the seconds to each error. perimetry and its dense reference train on every seed."""
    names = bench.present(("perimetry", "perimetry_dense", *MAIN))
    factors = tune(bench, size, steps, names)
    runs: dict[str, list[list[Point]]] = {name: [] for name in names}
    for seed in range(bench.arguments.seeds):
        ours = [name for name in names if not seed or ARMS[name].library == OURS.library]
        for name, curve in curves(bench, size, steps, seed, ours, factors).items():
            runs[name].append(curve)
    runs = {name: found for name, found in runs.items() if found}
    about = {"section": "training", "architecture": "topk", **size._asdict(), "l0": size.k, "steps": steps}
    rows: list[dict[str, Any]] = []
    for name, found in runs.items():
        for seed, curve in enumerate(found):
            rows += [
                row("fvu", name, "", spread([point.fvu]), **about, step=point.steps, seconds=point.seconds)
                | {"seed": seed}
                for point in curve
            ]
        rate = [steps * size.batch / curve[-1].seconds for curve in found]
        factor = {"lr_factor": factors[base_of(name)]}
        rows.append(row("training_tokens_per_s", name, "", spread(rate), **about, **factor))
        if name != "perimetry":
            times = [
                other[-1].seconds / ours[-1].seconds for other, ours in zip(found, runs["perimetry"], strict=False)
            ]
            rows.append(row("time_ratio", name, "perimetry", spread(times), **about))
    for target in TARGETS:
        for name, found in runs.items():
            seconds = [s for curve in found if (s := reached(curve, target)) is not None]
            if len(seconds) == len(found):
                rows.append(row("seconds_to_fvu", name, "", spread(seconds), **about, target=target))
    return rows
