"""The shift meter on the embedding of a condition: is the condition unsupported, and is the image right all the same?"""

from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.labs.base import Measured
from perimetry.labs.concept_space.denoiser import TRAINED, Denoiser
from perimetry.labs.concept_space.images import COLOUR, PIXELS, World, pushed, rendered
from perimetry.labs.points import BASELINES, CONCEPTS, PointMeter, aurocs, evidence_of, recipe_of, train_on_points
from perimetry.measures.reconstruction import fvu
from perimetry.runtime import generator
from perimetry.shift.mahalanobis import whitener

__all__ = ["AttachConfig", "attach"]

SIGMAS: Final = (0.1, 0.3, 1.0)
"""Noise at which the loss of a denoiser stands for likelihood."""
GREEN: Final = (0.2, 0.8, 0.2)
Scores = dict[str, Tensor]


class AttachConfig(NamedTuple):
    """Sizes."""

    conditions: int
    """Conditions of each trained class that a dictionary is made of."""
    tests: int
    """Test conditions of each kind."""
    latents: int
    """Latents of the dictionary."""
    steps: int
    """Its training steps, of 512 conditions."""


def _kinds(world: World, count: int, draw: torch.Generator) -> dict[str, Float[Tensor, "image condition"]]:
    """Conditions by kind: trained classes first, twice; what was never trained on next."""
    each = -(-count // len(TRAINED))
    found = {
        name: torch.cat([world.conditions(one, each, draw) for one in TRAINED]) for name in ("known", "known again")
    }
    unseen = world.conditions("11", count, draw)
    green = world.conditions("10", count, draw)
    green[:, COLOUR] = torch.tensor(GREEN)
    return found | {
        "11": unseen,
        "green": green,
        "pushed 10": pushed(world.conditions("10", count, draw), 2.0),
        "pushed 11": pushed(unseen, 2.0),
    }


@torch.no_grad()
def attach(model: Denoiser, world: World, at: AttachConfig, seed: int, *, whole: bool = True) -> list[Measured]:
    """AUROC of every score on every kind against trained classes; without `whole` of the unseen combination only."""
    draw = generator(512_927_357 + seed)
    clean = torch.cat([world.conditions(name, at.conditions, draw) for name in TRAINED])
    states = model.condition(clean)
    # A weight of 1 at a mean square norm of the width, brought to a total variance of 1.
    weight = 1 / states.shape[1] ** 0.5
    recipe = recipe_of("standard", width=at.latents, k=10, steps=at.steps, seed=seed, lr=3e-3, sparsity=weight)
    with torch.enable_grad():
        made = train_on_points(states, recipe)
    meter = PointMeter(made, states, (*CONCEPTS, *BASELINES))
    raw = _Gaussian(clean)
    noise = torch.randn(len(SIGMAS), 1, PIXELS, generator=draw)

    def scores(conditions: Tensor) -> Scores:
        images = rendered(conditions)
        lost = [
            model.losses(images, conditions, torch.full((len(images),), sigma), one.expand(len(images), -1))
            for sigma, one in zip(SIGMAS, noise, strict=True)
        ]
        own = meter.scores(model.condition(conditions))
        return own | {"raw mahalanobis": raw.score(conditions), "denoising loss": torch.stack(lost).mean(0)}

    kinds = _kinds(world, at.tests, draw)
    usual = scores(kinds.pop("known"))
    chosen = kinds if whole else {"11": kinds["11"]}
    measured = [one for kind, own in chosen.items() for one in aurocs(f"AUROC of {kind}", usual, scores(own))]
    inputs = made.inputs(states)
    evidence = evidence_of(made.sae, inputs)
    return [
        *measured,
        Measured("active latents", float(evidence.codes.count().double().mean())),
        Measured("unexplained", fvu(inputs, evidence.reconstruction)),
    ]


class _Gaussian:
    """Mahalanobis distance in the conditions themselves, without a model."""

    def __init__(self, clean: Tensor) -> None:
        self.mean = clean.mean(0)
        self.white = whitener(clean.double().T.cov())

    def score(self, conditions: Tensor) -> Float[Tensor, " image"]:
        return ((conditions - self.mean) @ self.white).square().sum(1)
