"""The arms of the lab: the toy whose direction is known, and the small real model under personas."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from perimetry.evals.steering import Likelihoods, effects, normalised, verdict
from perimetry.labs.base import Curve, Measured, Outcome
from perimetry.labs.points import BASELINES, CONCEPTS, PointMeter, evidence_of, recipe_of, train_on_points
from perimetry.labs.steering.toy import Answers, Toy, answers, train_toy
from perimetry.measures.ranking import auroc_interval
from perimetry.measures.reconstruction import fvu
from perimetry.measures.stats import spearman
from perimetry.runtime import generator

__all__ = ["DOSES", "ToySizes", "measured_effects", "run_toy"]

DOSES = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)
RANDOM = 20
CAA_NORM = 2.0
DAMAGE = 12.0


class ToySizes(NamedTuple):
    """Sizes of the toy arm."""

    steps: int
    """Training steps of the model."""
    questions: int
    """Questions of the evaluation set."""
    sae_steps: int
    """Training steps of the meter's dictionary, of 512 tokens."""
    latents: int
    """Its latents."""


def measured_effects(found: Likelihoods, case: str, seed: int = 0) -> list[Measured]:
    """Every effect as a number, with the verdict and what the published rule says."""
    made = effects(found, seed=seed)
    rows = [
        Measured(
            e.metric,
            e.interval.estimate,
            case if e.share == 1 else f"{case}, weakest {100 * e.share:g} %",
            e.interval.low,
            e.interval.high,
            e.interval.n,
        )
        for e in made
    ]
    said = verdict(made)
    published = normalised(found)
    rows += [Measured(name, value, case) for name, value in published.items()]
    rows += [
        Measured(f"verdict: {name}", float(said == name), case)
        for name in ("steers", "damages", "suppresses only", "null")
    ]
    success = published["positive_published"] > 0 and published["negative_published"] < 0
    return [*rows, Measured("published rule: success", float(success), case)]


def _pushes(toy: Toy, seed: int) -> dict[str, Tensor]:
    """What is added at the site, by name."""
    draw = generator(50 + seed)
    v = toy.direction
    contrast = toy.contrast(256, draw)
    found = {f"v, {c:g}": c * v for c in (0.0, *DOSES, -2.0)}
    found["CAA"] = contrast / contrast.norm() * CAA_NORM
    for i in range(RANDOM):
        drawn = torch.randn(v.shape, generator=draw)
        drawn = drawn - v * (drawn @ v)
        found[f"random {i}"] = drawn / drawn.norm() * 2
    found["random 0, half as long"] = found["random 0"] / 2
    return found


def _likelihoods(toy: Toy, both: Answers, push: Tensor | None) -> Likelihoods:
    before = toy.likelihoods(both.positive), toy.likelihoods(both.negative)
    return Likelihoods(*before, toy.likelihoods(both.positive, push), toy.likelihoods(both.negative, push))


def run_toy(seed: int, sizes: ToySizes, *, pushed: bool) -> Outcome:
    """Train the toy and evaluate every intervention; without `pushed` the direction meant nothing in training."""
    toy = train_toy(seed, sizes.steps, pushed=pushed)
    both = answers(sizes.questions, 70 + seed)
    pushes = _pushes(toy, seed)
    draw = generator(90 + seed)
    pushes["damage"] = torch.randn(sizes.questions, both.positive.shape[1], toy.direction.shape[0], generator=draw)
    pushes["damage"] = pushes["damage"] / pushes["damage"].norm(dim=2, keepdim=True) * DAMAGE
    measured: list[Measured] = []
    contrasts: dict[str, float] = {}
    for name, push in pushes.items():
        found = _likelihoods(toy, both, push)
        rows = measured_effects(found, name, seed)
        contrasts[name] = next(m.value for m in rows if m.metric == "contrast" and m.case == name)
        if not name.startswith("random"):
            measured += rows
    drawn = torch.tensor([contrasts[f"random {i}"] for i in range(RANDOM)])
    doses = torch.tensor(DOSES, dtype=torch.float64)
    by_dose = torch.tensor([contrasts[f"v, {c:g}"] for c in DOSES], dtype=torch.float64)
    caa = torch.nn.functional.cosine_similarity(pushes["CAA"], toy.direction, 0)
    measured += [
        Measured("mean contrast", float(drawn.mean().abs()), "random"),
        Measured("largest contrast", float(drawn.abs().max()), "random"),
        Measured("contrast follows the dose", spearman(by_dose, doses).estimate),
        Measured("cosine with the planted direction", float(caa), "CAA"),
        Measured("loss of the toy", toy.loss),
        *_shuffled(toy, both, pushes["v, 2"], seed),
    ]
    curves = {"contrast": Curve(list(DOSES), by_dose.tolist())}
    read, more = _meter(toy, both, pushes, sizes, seed)
    return Outcome(measured + read, curves | more)


def _shuffled(toy: Toy, both: Answers, push: Tensor, seed: int) -> list[Measured]:
    """The labels of half of the prompts exchanged: no contrast must be left."""
    found = _likelihoods(toy, both, push)
    n = found.positive.shape[0]
    turn = torch.randperm(n, generator=generator(110 + seed)) < n // 2
    mixed = Likelihoods(
        torch.where(turn, found.negative_before, found.positive_before),
        torch.where(turn, found.positive_before, found.negative_before),
        torch.where(turn, found.negative, found.positive),
        torch.where(turn, found.positive, found.negative),
    )
    rows = measured_effects(mixed, "shuffled labels", seed)
    contrast = next(m for m in rows if m.metric == "contrast" and m.case == "shuffled labels")
    holds_zero = (contrast.low or 0.0) <= 0 <= (contrast.high or 0.0)
    return [*rows, Measured("contrast not told from 0", float(holds_zero), "shuffled labels")]


def _meter(
    toy: Toy, both: Answers, pushes: Mapping[str, Tensor], sizes: ToySizes, seed: int
) -> tuple[list[Measured], dict[str, Curve]]:
    """How far each intervention leaves what the site usually holds; that is all that a score can say of it."""
    reference = torch.cat(
        [answers(8 * sizes.questions, 130 + seed).positive, answers(8 * sizes.questions, 131 + seed).negative]
    )
    states = toy.states(reference)
    # A weight of 1 at a mean square norm of the width, brought to a total variance of 1.
    weight = 1 / toy.direction.shape[0] ** 0.5
    recipe = recipe_of(
        "standard", width=sizes.latents, k=10, steps=sizes.sae_steps, seed=seed, lr=3e-3, sparsity=weight
    )
    made = train_on_points(states.flatten(0, 1), recipe)
    meter = PointMeter(made, states.flatten(0, 1), (*CONCEPTS, *BASELINES))

    def scores(push: Tensor | None) -> dict[str, Tensor]:
        own = {name: values.mean(1) for name, values in meter.by_place(toy.states(both.positive, push)).items()}
        return own | {"nll": -toy.likelihoods(both.positive, push)}

    clean = scores(None)
    inputs = made.inputs(toy.states(both.positive).flatten(0, 1))
    evidence = evidence_of(made.sae, inputs)
    measured = [
        Measured("active latents", float(evidence.codes.count().double().mean())),
        Measured("unexplained", fvu(inputs, evidence.reconstruction)),
    ]
    means: dict[str, list[float]] = {name: [] for name in clean}
    areas: dict[str, dict[str, float]] = {}
    for name in (*(f"v, {c:g}" for c in DOSES), "CAA", "random 0", "random 0, half as long", "damage"):
        found = scores(pushes[name])
        for score, values in found.items():
            box = auroc_interval(clean[score], values, pairs=False)
            measured.append(Measured.within("AUROC", box, f"{score}, {name}"))
            areas.setdefault(name, {})[score] = box.estimate
            if name.startswith("v"):
                means[score].append(float(values.double().mean()))
    doses = torch.tensor(DOSES, dtype=torch.float64)
    for score, values in means.items():
        order = spearman(torch.tensor(values, dtype=torch.float64), doses).estimate
        measured.append(Measured("mean score follows the dose", order, score))
        gap = abs(areas["v, 2"][score] - areas["random 0"][score])
        measured.append(Measured("steering told from a random push", gap, score))
    curves = {name: Curve(list(DOSES), [areas[f"v, {c:g}"][name] for c in DOSES]) for name in clean}
    return measured, {f"AUROC, {name}": curve for name, curve in curves.items()}
