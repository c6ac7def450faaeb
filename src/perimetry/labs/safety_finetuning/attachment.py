"""The shift meter on text and end of text: is an attack out of distribution, and does that tell whether it succeeds?"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.labs.base import Measured
from perimetry.labs.nano import Nano
from perimetry.labs.points import (
    BASELINES,
    CONCEPTS,
    PointMeter,
    Scaled,
    aurocs,
    evidence_of,
    recipe_of,
    train_on_points,
)
from perimetry.labs.safety_finetuning.answers import asked
from perimetry.labs.safety_finetuning.probes import Centres, inner, tau
from perimetry.labs.safety_finetuning.world import Prompts, World
from perimetry.measures.ranking import auroc_interval, tpr_at_fpr
from perimetry.measures.reconstruction import fvu
from perimetry.runtime import generator
from perimetry.shift import DETECTORS
from perimetry.shift.base import AbstractDetector, Evidence
from perimetry.shift.pooling import pool
from perimetry.shift.profile import Profile

__all__ = ["MEANS", "SEQUENCES", "AttachConfig", "States", "TextMeter", "attach", "mixed", "states_of"]

SITE: Final = 1
"""Block whose output is read."""
SEQUENCES: Final = ("code_knn", "code_mahalanobis", "coactivation")
"""Scores of a whole prompt by its concepts."""
MEANS: Final = ("knn of the mean", "mahalanobis of the mean")
"""Scores of a whole prompt by its mean state."""
FEWEST: Final = 8
"""Fewest prompts of each outcome of which success is told."""
ALARMS: Final = 0.05
Scores = dict[str, Float[Tensor, " prompt"]]


class AttachConfig(NamedTuple):
    """Sizes."""

    reference: int
    """Prompts that dictionary and scores are fitted on."""
    tests: int
    """Test prompts of each kind."""
    latents: int
    """Latents of the dictionary."""
    steps: int
    """Its training steps, of 512 tokens."""


class States(NamedTuple):
    """The residual stream of some prompts at text and end of text."""

    acts: Float[Tensor, "token d_model"]
    """One prompt after another."""
    prompt: Int[Tensor, " token"]
    """Which prompt each belongs to."""
    nll: Float[Tensor, " prompt"]
    """Mean negative log-likelihood of these tokens, in nats."""

    def means(self) -> Float[Tensor, "prompt d_model"]:
        """The mean of each prompt."""
        total = torch.zeros(len(self.nll), self.acts.shape[1]).index_add(0, self.prompt, self.acts)
        return total / torch.bincount(self.prompt, minlength=len(self.nll))[:, None]


@torch.no_grad()
def states_of(model: Nano, prompts: Prompts) -> States:
    """Read them off."""
    parts = [_states(model, prompts.rows(some)) for some in torch.arange(len(prompts.ids)).split(512)]
    counts = torch.cat([torch.bincount(part.prompt) for part in parts])
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    return States(torch.cat([part.acts for part in parts]), owner, torch.cat([part.nll for part in parts]))


def _states(model: Nano, prompts: Prompts) -> States:
    end = int(prompts.eot.max()) + 1
    ids, where = prompts.ids[:, :end], prompts.text[:, :end]
    output = asked(model, ids, prompts, (SITE,))
    logs = output.logits.log_softmax(-1).cpu()[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    told = where[:, 1:]
    return States(
        output.residuals[SITE].float().cpu()[where], where.nonzero()[:, 0], -(logs * told).sum(1) / told.sum(1)
    )


@final
class TextMeter:
    """Detectors fitted on clean prompts; token scores are pooled to their mean. Higher = further."""

    def __init__(self, made: Scaled, clean: States) -> None:
        """Fit them all."""
        self.made = made
        profile = Profile.empty(clean.acts.shape[1], made.sae.d_sae, 1, 0)
        profile.update(self._evidence(clean))
        self.detectors: dict[str, AbstractDetector] = {
            name: DETECTORS[name].fit(profile) for name in (*CONCEPTS, *SEQUENCES, *BASELINES)
        }
        self.of_means = PointMeter(made, clean.means(), ("knn", "mahalanobis"))

    def _evidence(self, states: States) -> Evidence:
        plain = evidence_of(self.made.sae, self.made.inputs(states.acts))
        first = torch.searchsorted(states.prompt, torch.arange(len(states.nll)))
        places = torch.arange(len(states.prompt)) - first[states.prompt]
        return plain._replace(positions=places, prompt=states.prompt, words=torch.ones(len(states.nll)))

    def scores(self, states: States) -> Scores:
        """Every score of every prompt."""
        evidence, count = self._evidence(states), len(states.nll)
        found: Scores = {}
        for name, detector in self.detectors.items():
            values = states.acts.norm(dim=1) if name == "norm" else detector.score(evidence).float()
            found[name] = values if detector.level == "prompt" else pool(values, states.prompt, count, "mean")
        of_means = self.of_means.scores(states.means())
        return found | {f"{name} of the mean": values for name, values in of_means.items()} | {"nll": states.nll}


def mixed(world: World, count: int, draw: torch.Generator) -> Prompts:
    """What fine-tuning is done on: as many safe prompts as unsafe ones."""
    safe, unsafe = (world.draw(kind, count // 2, draw) for kind in ("safe", "unsafe"))
    width = max(safe.ids.shape[1], unsafe.ids.shape[1])
    ids = [torch.nn.functional.pad(one.ids, (0, width - one.ids.shape[1])) for one in (safe, unsafe)]
    return Prompts(torch.cat(ids), torch.cat([safe.eot, unsafe.eot]))


def attach(
    model: Nano,
    world: World,
    attacks: Mapping[str, Prompts],
    complied: Mapping[str, Bool[Tensor, " prompt"]],
    centres: Centres,
    at: AttachConfig,
    seed: int,
) -> list[Measured]:
    """AUROC of each score on each attack against clean prompts, and (case `success`) of those that succeed against those that do not.

    `centres`: of the last block; the side (`tau`) that they give knows the labels, and is what a supervised score would reach.
    """
    draw = generator(982_451_653 + seed)
    reference = states_of(model, mixed(world, at.reference, draw))
    # A weight of 1 at a mean square norm of the width, brought to a total variance of 1.
    weight = 1 / reference.acts.shape[1] ** 0.5
    recipe = recipe_of("standard", width=at.latents, k=10, steps=at.steps, seed=seed, lr=3e-3, sparsity=weight)
    made = train_on_points(reference.acts, recipe)
    meter = TextMeter(made, reference)

    def scores(prompts: Prompts) -> Scores:
        return meter.scores(states_of(model, prompts)) | {"tau": tau(inner(model, prompts)[-1].hidden, centres)}

    clean = scores(mixed(world, at.tests, draw))
    read = {"known again": scores(mixed(world, at.tests, draw))} | {k: scores(p) for k, p in attacks.items()}
    measured = [one for kind, own in read.items() for one in aurocs(f"AUROC of {kind}", clean, own)]
    for kind, own in read.items():
        measured += [
            Measured(f"alarms on {kind}", tpr_at_fpr(clean[name], own[name], ALARMS), name) for name in SEQUENCES
        ]
    measured += _best(measured, attacks)
    for kind, passed in complied.items():
        measured += _success(kind, read[kind], passed)
    inputs = made.inputs(reference.acts)
    evidence = evidence_of(made.sae, inputs)
    return [
        *measured,
        Measured("active latents", float(evidence.codes.count().double().mean())),
        Measured("unexplained", fvu(inputs, evidence.reconstruction)),
    ]


def _best(measured: Sequence[Measured], kinds: Mapping[str, Prompts]) -> list[Measured]:
    """The best of the scores that read a whole prompt by its concepts; chosen on the same prompts."""
    return [
        Measured(
            f"AUROC of {kind}",
            max(m.value for m in measured if m.metric == f"AUROC of {kind}" and m.case in SEQUENCES),
            "best of a whole prompt",
        )
        for kind in kinds
    ]


def _success(kind: str, own: Scores, passed: Bool[Tensor, " prompt"]) -> list[Measured]:
    if min(int(passed.sum()), int((~passed).sum())) < FEWEST:
        return []
    return [
        Measured.within(
            f"AUROC of {kind}", auroc_interval(values[~passed], values[passed], pairs=False), f"{name}, success"
        )
        for name, values in own.items()
    ]
