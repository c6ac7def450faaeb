"""One way of fine-tuning under one seed: train or load what all of them share, fine-tune at each rate, measure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

from perimetry.labs.base import Curve, Measured, Outcome
from perimetry.labs.nano import Nano
from perimetry.labs.safety_finetuning.answers import Given, attacked, given
from perimetry.labs.safety_finetuning.attachment import AttachConfig, attach
from perimetry.labs.safety_finetuning.models import RATES, Method, Rate, SafetyArm, finetune, kept, pretrain
from perimetry.labs.safety_finetuning.probes import (
    Centres,
    Inner,
    between,
    centres_of,
    inner,
    leading_share,
    outside,
    pull,
    separation,
    shuffled_separation,
    steepness,
    tau,
    update_of,
)
from perimetry.labs.safety_finetuning.world import ATTACKS, Prompts, World
from perimetry.measures.stats import mean_interval, wilson
from perimetry.runtime import generator

__all__ = ["SafetySizes", "run_method"]

KNOWN: Final = ("safe", "unsafe", "CO-Text", "CO-Task")
"""Kinds that the model must answer before fine-tuning."""
SHARES: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
"""How far along the way from the one model to the other; more than 1: beyond."""
TOP: Final = 5
"""Directions of the update that are looked at."""
DRAWN: Final = 256
Drawn = Mapping[str, Prompts]


class SafetySizes(NamedTuple):
    """Sizes."""

    pretraining: int
    """Updates of pre-training."""
    tuning: int
    """Updates of fine-tuning."""
    tests: int
    """Prompts of each kind."""
    at: AttachConfig
    """The meter."""
    metered: tuple[Rate, ...]
    """Rates at which it is asked."""


class _Job(NamedTuple):
    arm: SafetyArm
    world: World
    seed: int
    sizes: SafetySizes
    before: Nano
    drawn: Drawn


def run_method(arm: SafetyArm, method: Method, seed: int, sizes: SafetySizes, folder: Path, name: str) -> Outcome:
    """Fine-tune by a method and measure; `plain` is the control. `folder` holds what the methods of a seed share, under `name`.

    Where the model does not answer before fine-tuning nothing more is done, and no other number comes out.
    """
    world = arm.make(seed)
    before = kept(
        arm, world, seed, folder / f"{name}-{seed}.safetensors", lambda: pretrain(arm, world, seed, sizes.pretraining)
    )
    draw = generator(512_927_377 + seed)
    drawn = {kind: world.draw(kind, sizes.tests, draw) for kind in world.kinds}
    job = _Job(arm, world, seed, sizes, before, drawn)
    was = {kind: float(given(before, prompts).comply.double().mean()) for kind, prompts in drawn.items()}
    measured = [Measured("accuracy before", value, kind) for kind, value in was.items()]
    measured.append(Measured("least accuracy before", min(was[kind] for kind in KNOWN)))
    if measured[-1].value < arm.least:
        return Outcome(measured, {})
    file = folder / f"{name}-plain-{seed}.safetensors"
    plain = kept(arm, world, seed, file, lambda: finetune(arm, world, before, seed, "plain", "medium", sizes.tuning))
    if method == "plain":
        found = _measured(job, plain, plain)
        return Outcome(measured + _named(found.measured, "medium"), _curves(found.curves, "medium"))
    curves: dict[str, Curve] = {}
    apart: dict[str, float] = {}
    for rate in RATES:
        model = finetune(arm, world, before, seed, method, rate, sizes.tuning)
        found = _measured(job, model, plain, metered=rate in sizes.metered)
        apart[rate] = found.value("separation", "last block")
        measured += _named(found.measured, rate)
        curves |= _curves(found.curves, rate)
    measured.append(Measured("separation gained by the greater rate", apart["medium"] - apart["small"]))
    return Outcome(measured, curves)


def _named(measured: list[Measured], rate: Rate) -> list[Measured]:
    return [m._replace(case=f"{rate}, {m.case}" if m.case else rate) for m in measured]


def _curves(curves: Mapping[str, Curve], rate: Rate) -> dict[str, Curve]:
    return {f"{name}, {rate}": curve for name, curve in curves.items()}


def _measured(job: _Job, model: Nano, plain: Nano, *, metered: bool = False) -> Outcome:
    """Everything of one fine-tuned model."""
    prompts = {**job.drawn, "Adv": attacked(model, job.drawn["unsafe"])}
    answers = {kind: given(model, own) for kind, own in prompts.items()}
    insides = {kind: inner(model, own) for kind, own in prompts.items()}
    safe, unsafe = insides["safe"], insides["unsafe"]
    half = job.sizes.tests // 2
    centres = centres_of(safe[-1].hidden[:half], unsafe[-1].hidden[:half])
    sides = {kind: tau(own[-1].hidden, centres) for kind, own in insides.items()}
    apart = [separation(a.hidden, b.hidden) for a, b in zip(safe, unsafe, strict=True)]
    other = [inner(plain, job.drawn[kind])[-1].hidden for kind in ("safe", "unsafe")]
    usual = separation(other[0], other[1])
    measured = [
        *_answers(answers),
        *_sides(sides, answers),
        *(Measured("separation", value, f"block {block}") for block, value in enumerate(apart)),
        Measured("separation", apart[-1], "last block"),
        Measured("separation over the first block", apart[-1] / max(abs(apart[0]), 1e-6)),
        Measured("separation over plain fine-tuning", apart[-1] / max(abs(usual), 1e-6)),
        Measured("separation by shuffled labels", shuffled_separation(safe[-1].hidden, unsafe[-1].hidden, job.seed)),
        *_spread(safe[-1], unsafe[-1]),
        *_update(job, model, plain, safe[-1], unsafe[-1]),
    ]
    steep, curves = _way(job, model)
    curves["separation"] = Curve([float(block) for block in range(len(apart))], apart)
    for kind in ("safe", "unsafe", *ATTACKS, "Adv"):
        curves[f"sides of {kind}"] = Curve(
            [(i + 0.5) / half for i in range(half)], sides[kind][-half:].sort().values.tolist()
        )
    if metered:
        measured += _metered(job, model, prompts, answers, centres)
    return Outcome(measured + steep, curves)


def _answers(answers: Mapping[str, Given]) -> list[Measured]:
    found: list[Measured] = []
    for kind, own in answers.items():
        parts = {"comply": own.comply, "refuse": own.refuse, "partial": ~(own.comply | own.refuse)}
        found += [Measured.within(name, wilson(int(yes.sum()), len(yes)), kind) for name, yes in parts.items()]
    return found


def _sides(sides: Mapping[str, Tensor], answers: Mapping[str, Given]) -> list[Measured]:
    """Share on the safe side: of all, of those that comply, of those that are refused."""
    found: list[Measured] = []
    for kind, own in sides.items():
        groups = {
            "complied": answers[kind].comply,
            "refused": answers[kind].refuse,
            "all": torch.ones_like(answers[kind].comply),
        }
        for group, members in groups.items():
            if bool(members.any()):
                share = wilson(int((own[members] > 0).sum()), int(members.sum()))
                found.append(Measured.within("on the safe side", share, f"{kind}, {group}"))
    return found


def _spread(safe: Inner, unsafe: Inner) -> list[Measured]:
    shares = leading_share(safe.hidden), leading_share(unsafe.hidden)
    return [
        Measured("leading share of the variance", shares[0], "safe"),
        Measured("leading share of the variance", shares[1], "unsafe"),
        Measured("leading share, unsafe over safe", shares[1] / shares[0]),
    ]


def _update(job: _Job, model: Nano, plain: Nano, safe: Inner, unsafe: Inner) -> list[Measured]:
    """Column and row space of what fine-tuning added."""
    update = update_of(job.before, model)
    sines, rank = outside(update.left[:, :TOP], job.before)
    usual = outside(update_of(job.before, plain).left[:, :TOP], job.before)[0]
    drawn = torch.randn(len(update.left), DRAWN, generator=generator(961_748_941 + job.seed))
    chance = outside(drawn / drawn.norm(dim=0), job.before)[0]
    expected = (1 - rank / len(update.left)) ** 0.5
    pulls = pull(update, safe.read), pull(update, unsafe.read)
    return [
        Measured("dimension of the column space", float(rank)),
        *(Measured("sine", float(sine), f"direction {i}") for i, sine in enumerate(sines, 1)),
        Measured.within("sine", mean_interval(chance), "drawn directions"),
        Measured("sine of drawn directions less sqrt(1 - rank / rows)", float(chance.mean()) - expected),
        Measured("mean sine less that of drawn directions", float(sines.mean()) - expected),
        Measured("mean sine less that of plain fine-tuning", float(sines.mean() - usual.mean())),
        Measured.within("pull", mean_interval(pulls[0]), "safe"),
        Measured.within("pull", mean_interval(pulls[1]), "unsafe"),
        Measured("pull, unsafe over safe", float(pulls[1].mean() / pulls[0].mean().clamp_min(1e-300))),
    ]


def _way(job: _Job, model: Nano) -> tuple[list[Measured], dict[str, Curve]]:
    """How steep the answer is, and how much is refused, on the way from the one model to the other and beyond."""
    lines: dict[str, list[float]] = {}
    for share in SHARES:
        own = between(job.before, model, share)
        for kind in ("safe", "unsafe"):
            lines.setdefault(f"steepness of {kind}", []).append(float(steepness(own, job.drawn[kind]).mean()))
            lines.setdefault(f"refusal of {kind}", []).append(float(given(own, job.drawn[kind]).refuse.double().mean()))
    here, first = SHARES.index(1.0), SHARES.index(0.0)
    measured = [
        Measured(
            "steepness over that before", values[here] / max(values[first], 1e-12), name.removeprefix("steepness of ")
        )
        for name, values in lines.items()
        if name.startswith("steepness")
    ]
    return measured, {name: Curve(list(SHARES), values) for name, values in lines.items()}


def _metered(job: _Job, model: Nano, prompts: Drawn, answers: Mapping[str, Given], centres: Centres) -> list[Measured]:
    attacks = {kind: prompts[kind] for kind in (*ATTACKS, "Adv")}
    complied = {kind: answers[kind].comply for kind in attacks}
    return attach(model, job.world, attacks, complied, centres, job.sizes.at, job.seed)
