"""The images arm: training, looks at what is made of the unseen combination, pushes of the prompt, and the meter."""

import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.labs.base import Curve, Measured, Outcome
from perimetry.labs.concept_space.attachment import AttachConfig, attach
from perimetry.labs.concept_space.denoiser import Denoiser, Judge, judge_of, train_denoiser, training_set
from perimetry.labs.concept_space.images import PIXELS, World, pushed, turned
from perimetry.labs.lines import first_where
from perimetry.runtime import generator

__all__ = ["SIGNALS", "STRENGTHS", "ImageSizes", "run_images", "run_signals"]

SIGNALS: Final = (0.2, 0.3, 0.5, 0.8)
"""Differences of the colours; that of the sizes is .4."""
METERED: Final = {0.3: True, 0.8: False}
"""Signals at which the meter is asked, and whether over the whole of training."""

STRENGTHS: Final = (1.5, 2.0, 3.0)
"""How far a pushed prompt takes the colour from grey, as a factor."""
LEARNED: Final = 0.8
STRICT: Final = 0.9
IN_A_ROW: Final = 3
SAMPLES: Final = 64


class ImageSizes(NamedTuple):
    """Sizes."""

    each: int
    """Training images of a class."""
    steps: int
    """Training steps of the denoiser."""
    every: int
    """Steps between two looks."""
    judge: int
    """Training steps of the classifier."""
    meters: int
    """Looks at which the meter is attached, the last one too; 0: none."""
    at: AttachConfig
    """The meter."""


class _Look(NamedTuple):
    step: int
    plain: Float[Tensor, " 2"]
    pushed: dict[float, float]
    turned: float


def _look(model: Denoiser, judge: Judge, conditions: Tensor, noise: Tensor, seed: int, step: int) -> _Look:
    def shown(asked: Tensor) -> Tensor:
        return judge(model.sample(asked, noise)).double()

    plain = shown(conditions)
    far = turned(conditions, STRENGTHS[1], generator(seed))
    return _Look(
        step,
        plain.mean(0),
        {s: float(shown(pushed(conditions, s))[:, 0].mean()) for s in STRENGTHS},
        float(shown(far)[:, 0].mean()),
    )


def run_images(world: World, seed: int, sizes: ImageSizes, *, shuffled: bool = False) -> Outcome:
    """Train a denoiser and watch the class that it never saw. `shuffled`: conditions say nothing (control)."""
    judge, accuracy = judge_of(world, seed, sizes.judge)
    data = training_set(world, sizes.each, seed, shuffled=shuffled)
    draw = generator(655_360_001 + seed)
    conditions = world.conditions("11", SAMPLES, draw)
    noise = torch.randn(SAMPLES, PIXELS, generator=draw)
    looks: list[_Look] = []
    measured = [Measured("accuracy of the classifier", accuracy)]
    total = -(-sizes.steps // sizes.every)
    wanted = {round(total * (i + 1) / max(1, sizes.meters)) for i in range(sizes.meters)}
    seen: list[tuple[int, float]] = []
    for number, (step, model) in enumerate(train_denoiser(data, seed, sizes.steps, sizes.every)):
        looks.append(_look(model, judge, conditions, noise, seed, step))
        if number in wanted:
            last = step == sizes.steps
            read = attach(model, world, sizes.at, seed, whole=last)
            seen.append((step, next(m.value for m in read if m.metric == "AUROC of 11" and m.case == "bernoulli")))
            measured += read if last else []
    measured += _numbers(looks)
    curves = _curves(looks)
    if seen:
        curves["AUROC of 11"] = Curve([float(s) for s, _ in seen], [v for _, v in seen])
        measured += _while_right(seen, looks)
    return Outcome(measured, curves)


def run_signals(seed: int, sizes: ImageSizes, signals: Sequence[float]) -> Outcome:
    """Every signal under one seed; is colour learned sooner the stronger it is?"""
    measured: list[Measured] = []
    curves: dict[str, Curve] = {}
    times: list[float] = []
    for signal in signals:
        meters = (sizes.meters if METERED[signal] else 1) if signal in METERED else 0
        found = run_images(World(signal), seed, sizes._replace(meters=meters))
        times.append(found.value("step of colour"))
        measured += [
            m._replace(case=", ".join([*([m.case] if m.case else []), f"signal {signal:g}"])) for m in found.measured
        ]
        curves |= {f"{name}, signal {signal:g}": curve for name, curve in found.curves.items()}
    falls = all(after < before for before, after in itertools.pairwise(times))
    curves["time"] = Curve(list(signals), times)
    return Outcome([*measured, Measured("colour is learned sooner with every signal", float(falls))], curves)


def _first(looks: list[_Look], concept: int) -> float:
    return first_where([look.step for look in looks], (bool(look.plain[concept] >= LEARNED) for look in looks))


def _strictly(looks: list[_Look], concept: int) -> float:
    """As the released code counts: above .9 at three looks in a row."""
    right = [bool(look.plain[concept] > STRICT) for look in looks]
    found = (all(right[i : i + IN_A_ROW]) for i in range(len(right) - IN_A_ROW + 1))
    return first_where([look.step for look in looks], found)


def _numbers(looks: list[_Look]) -> list[Measured]:
    # Before it is trained, a denoiser makes what no classifier was shown.
    trained = looks[1:]
    colour = _first(trained, 0)
    blue = torch.stack([look.plain[0] for look in trained])
    small = torch.stack([look.plain[1] for look in trained])
    gaps = {s: torch.tensor([look.pushed[s] - float(look.plain[0]) for look in trained]) for s in STRENGTHS}
    early = torch.tensor([look.step < colour / 3 for look in trained])
    best = torch.stack(list(gaps.values())).amax(0)
    hidden = torch.tensor([max(k.pushed.values()) >= STRICT and float(k.plain[0]) <= 0.2 for k in trained])
    measured = [
        Measured("step of colour", colour),
        Measured("step of size", _first(trained, 1)),
        Measured("step of colour, strictly", _strictly(trained, 0)),
        Measured("step of size, strictly", _strictly(trained, 1)),
        Measured("looks bent to small red", float(((small >= 0.75) & (blue <= 0.5)).sum())),
        Measured("looks bent to big blue", float(((blue >= 0.8) & (small <= 0.5)).sum())),
        Measured("chance of blue", float(blue[-1]), "end"),
        Measured("chance of small", float(small[-1]), "end"),
        Measured("chance that both are right", float((blue * small)[-1]), "end"),
        *(Measured("largest gain of a pushed prompt", float(gap.max()), f"{s:g}") for s, gap in gaps.items()),
        Measured("largest gain of a pushed prompt", float(best.max()), "any strength"),
        Measured("gain of a drawn direction", max(k.turned - float(k.plain[0]) for k in trained)),
        Measured("gain of a drawn direction, mean", sum(k.turned - float(k.plain[0]) for k in trained) / len(trained)),
        Measured("looks at which a pushed prompt shows what a plain one does not", float(hidden.sum())),
    ]
    if bool(early.any()):
        measured.append(Measured("largest gain of a pushed prompt", float(best[early].max()), "early"))
    return measured


def _while_right(seen: list[tuple[int, float]], looks: list[_Look]) -> list[Measured]:
    """Least AUROC of the unseen combination over the looks, and over those at which its colour is made rightly; 0 where it never is."""
    blue = {look.step: float(look.plain[0]) for look in looks}
    right = [area for step, area in seen if blue[step] >= LEARNED]
    return [
        Measured("least AUROC of 11 over training", min(area for _, area in seen)),
        Measured("least AUROC of 11 where it is made", min(right, default=0.0)),
    ]


def _curves(looks: list[_Look]) -> dict[str, Curve]:
    steps = [float(look.step) for look in looks]
    blue, small = ([float(look.plain[i]) for look in looks] for i in (0, 1))
    return {
        "blue": Curve(steps, blue),
        "small": Curve(steps, small),
        **{f"pushed {s:g}": Curve(steps, [look.pushed[s] for look in looks]) for s in STRENGTHS},
    }
