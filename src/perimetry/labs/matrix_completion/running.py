"""The arms of the lab: what no model is needed for, the sums, the matrices."""

import copy
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import torch

from perimetry.labs.base import Curve, Measured, Outcome
from perimetry.labs.lines import first_where
from perimetry.labs.matrix_completion.attachment import AttachConfig, attach_completer, attach_sums, counts_at
from perimetry.labs.matrix_completion.completer import (
    Completer,
    CompletionArm,
    Fit,
    copy_error,
    looked_at,
    oddness,
    train_completer,
)
from perimetry.labs.matrix_completion.interventions import intervened, probed
from perimetry.labs.matrix_completion.nuclear import errors_of, exact_floor, least_nuclear
from perimetry.labs.matrix_completion.sums import FLOOR, Look, Sums, SumsArm, sequences, train_sums
from perimetry.labs.matrix_completion.sums import looked_at as looked_at_sums
from perimetry.labs.matrix_completion.world import Masked, masked, matrices
from perimetry.runtime import generator

__all__ = ["CONSTANTS", "NUCLEAR", "run_baselines", "run_completion", "run_sums"]

NUCLEAR: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
"""Chances of being masked at which the least nuclear norm is measured on matrices of 7 by 7 and rank 2."""
IDENTIFIED: Final = {"5x5": (5, 0.3), "5x5, half": (5, 0.5), "6x6": (6, 0.3), "4x4": (4, 0.25)}
"""Sizes and chances at which it is measured what nothing determines."""
BEGUN: Final = 0.1
"""Share of the steps after which a completer is called early."""
CONSTANTS: Final = (0.44, -0.24)
EARLY: Final = 50
"""Steps at the beginning in which repetition is looked for."""
BEFORE: Final = (150, 160)
"""Steps before the drop at which something is said."""


def run_baselines(seed: int, count: int) -> Outcome:
    """Copying, the least nuclear norm, and knowing what can be known."""
    draw = generator(32_416_190_071 % 2**31 + seed)
    measured: list[Measured] = []
    for name, size, rank in (("7x7, rank 2", 7, 2), ("5x5, rank 1", 5, 1)):
        whole = matrices(20 * count, size, size, rank, draw)
        measured.append(Measured("error of copying", float(whole.square().mean()), f"{name}, masked"))
        measured.append(Measured("error of copying", 0.3 * float(whole.square().mean()), f"{name}, all"))
    given = [(f"7x7, masked {p:g}", masked(matrices(count, 7, 7, 2, draw), p, draw)) for p in NUCLEAR]
    for decimals in (2, 1):
        values = matrices(count, 5, 5, 1, draw, decimals=decimals)
        given.append((f"5x5, {decimals} decimals", masked(values, 0.3, draw)))
    for name, one in given:
        hidden, every = errors_of(least_nuclear(one), one)
        measured += [
            Measured("error of the least nuclear norm", hidden, f"{name}, masked"),
            Measured("error of the least nuclear norm", every, f"{name}, all"),
        ]
    for name, (size, chance) in IDENTIFIED.items():
        share, floor = exact_floor(masked(matrices(20 * count, size, size, 1, draw), chance, draw))
        measured += [Measured("share that nothing determines", share, name), Measured("floor", floor, name)]
    return Outcome(measured, {})


class SumsSizes(NamedTuple):
    """Sizes of a look at the sums."""

    every: int
    """Steps between two looks."""
    tests: int
    """Sequences of a look."""
    at: AttachConfig | None
    """The meter, or None where it is not attached."""


def _half_way(xs: Sequence[int], ys: Sequence[float]) -> float:
    """First step at which a line has done half of its way."""
    way = abs(ys[-1] - ys[0])
    return first_where(xs, (abs(y - ys[0]) >= way / 2 for y in ys))


def run_sums(arm: SumsArm, seed: int, steps: int, sizes: SumsSizes) -> Outcome:
    """Train on sums and look at everything on the way."""
    draw = generator(141_650_939 + seed)
    ids = sequences(sizes.tests, draw, arm.answer)
    seen: dict[int, Look] = {}
    kept: dict[int, dict[str, torch.Tensor]] = {}
    model: Sums | None = None
    for step, own in train_sums(arm, seed, steps, sizes.every):
        seen[step], model = looked_at_sums(own, ids), own
        if sizes.at is not None:
            kept[step] = {name: value.detach().clone() for name, value in own.state_dict().items()}
    assert model is not None, "step 0 is always looked at"
    xs = list(seen)
    lines = {name: [getattr(look, name) for look in seen.values()] for name in Look._fields}
    measured = _sums_numbers(xs, lines)
    if sizes.at is not None:
        read, meter = attach_sums(model, sizes.at, seed)
        measured += read
        again = Sums(arm.width, seed, uniform=arm.uniform)
        counts: list[float] = []
        for weights in kept.values():
            again.load_state_dict(weights)
            counts.append(counts_at(meter, again, ids))
        lines["count"] = counts
        moved = {name: _half_way(xs, lines[name]) for name in ("outputs", "progress", "count")}
        moved["collapse"] = float(xs[max(range(len(xs)), key=lambda i: lines["collapse"][i])])
        measured += [
            Measured("steps ahead of the loss", moved["outputs"] - moved[n], n) for n in moved if n != "outputs"
        ]
    steps_done = [float(x) for x in xs]
    return Outcome(measured, {name: Curve(steps_done, ys) for name, ys in lines.items()})


def _sums_numbers(xs: Sequence[int], lines: Mapping[str, Sequence[float]]) -> list[Measured]:
    outputs, progress = lines["outputs"], lines["progress"]

    def at(name: str, step: int) -> float:
        return lines[name][min(range(len(xs)), key=lambda i: abs(xs[i] - step))]

    return [
        Measured("loss of the answers", at("outputs", BEFORE[0]), f"step {BEFORE[0]}"),
        Measured("loss of the answers", outputs[-1], "end"),
        Measured("least loss of the answers", min(outputs)),
        Measured("step of the loss", first_where(xs, (y < 1.0 for y in outputs)), "below 1"),
        Measured("step of the loss", first_where(xs, (y < 0.1 for y in outputs)), "below .1"),
        Measured("step of the accuracy", first_where(xs, (y > 0.9 for y in lines["accuracy"])), "above .9"),
        Measured("loss above what can be foretold", lines["total"][-1] - FLOOR, "end"),
        Measured("attention on the right numbers", progress[-1], "end"),
        Measured("growth of that attention", at("progress", BEFORE[1]) / max(progress[0], 1e-12), f"step {BEFORE[1]}"),
        Measured("fall of the loss meanwhile", 1 - at("outputs", BEFORE[1]) / outputs[0], f"step {BEFORE[1]}"),
        Measured("cosine of two states", max(lines["collapse"]), "most"),
        Measured("cosine of two states", lines["collapse"][-1], "end"),
        Measured(
            "repetition", max(y for x, y in zip(xs, lines["repetition"], strict=True) if x <= EARLY), "most, early"
        ),
        Measured("repetition", lines["repetition"][-1], "end"),
    ]


def run_completion(arm: CompletionArm, seed: int, steps: int, looks: int, at: AttachConfig) -> Outcome:
    """Train on matrices, look on the way, and ask the meter at the end."""
    draw = generator(961_748_941 + seed)
    given = arm.draw(8 * at.tests, draw)
    some = Masked(*(part[: 2 * at.tests] for part in given))
    every = max(1, steps // looks)
    xs: list[float] = []
    lines: dict[str, list[float]] = {"shown": [], "masked": []}
    last: Fit | None = None
    model: Completer | None = None
    before: Completer | None = None
    for step, own in train_completer(arm, seed, steps, every):
        last, model = looked_at(own, given if step in (0, steps) else some), own
        if before is None and step >= BEGUN * steps:
            before = copy.deepcopy(own)
        xs.append(float(step))
        lines["shown"].append(last.shown)
        lines["masked"].append(last.hidden)
    assert model is not None, "step 0 is always looked at"
    assert last is not None, "with the model"
    assert before is not None, "the last step is looked at"
    plain = float(given.values[~given.observed].square().mean())
    measured = [
        Measured("error of shown entries", last.shown),
        Measured("error of masked entries", last.hidden),
        Measured("error of masked entries, of saying 0", last.hidden / plain),
        Measured("size of what is said of masked entries", last.size),
        Measured("f(-X) + f(X)", oddness(model, given)),
        Measured("least error of masked entries, of saying 0", min(lines["masked"][1:]) / plain),
        *(Measured("copy error", copy_error(model, given, c), f"{c:g}") for c in CONSTANTS),
        *_without_rank(model, arm, 8 * at.tests, draw),
        *_sharpness(xs, lines["masked"], plain),
        *intervened(model, before, given, seed),
        *probed(model, given, arm.layers),
    ]
    measured += attach_completer(model, arm, at, seed)
    return Outcome(measured, {name: Curve(xs, ys) for name, ys in lines.items()})


def _without_rank(model: Completer, arm: CompletionArm, count: int, draw: torch.Generator) -> list[Measured]:
    """Matrices of which nothing masked can be known: a model that does better there has seen what is masked."""
    full = matrices(count, arm.rows, arm.columns, arm.rank, draw, law="full")
    given: Masked = masked(full, arm.hidden, draw)
    plain = float(full[~given.observed].square().mean())
    return [Measured("error of masked entries, of saying 0", looked_at(model, given).hidden / plain, "no rank")]


def _sharpness(xs: Sequence[float], ys: Sequence[float], plain: float) -> list[Measured]:
    """Steps in which the masked error falls from 90 to 30 % of its plateau, and their share of all, where it does."""
    begun = next((x for x, y in zip(xs, ys, strict=True) if x > 0 and y < 0.9 * plain), None)
    done = next((x for x, y in zip(xs, ys, strict=True) if x > 0 and y < 0.3 * plain), None)
    found = [Measured("dropped", float(done is not None))]
    if begun is None or done is None:
        return found
    return [
        *found,
        Measured("steps of the drop", done - begun),
        Measured("share of the training that the drop takes", (done - begun) / xs[-1]),
    ]
