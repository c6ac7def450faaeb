"""The shift meter on plain points: detectors and baselines fitted on clean activations of a lab, each point a prompt of one token."""

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.axes import Acts
from perimetry.labs.base import Measured
from perimetry.measures.ranking import auroc_interval
from perimetry.runtime import generator
from perimetry.sae.affine import AffineSAE
from perimetry.sae.base import AbstractSAE, Codes
from perimetry.shift import DETECTORS
from perimetry.shift.base import AbstractDetector, Evidence
from perimetry.shift.profile import Profile
from perimetry.train.recipe import TrainConfig
from perimetry.train.trainer import Trainer

__all__ = [
    "BASELINES",
    "CONCEPTS",
    "PointMeter",
    "Scaled",
    "aurocs",
    "evidence_of",
    "recipe_of",
    "train_on_points",
]

CONCEPTS = ("l0", "l0_excess", "surprise", "bernoulli", "energy", "recon_error")
"""Scores that read the dictionary."""
BASELINES = ("norm", "mahalanobis", "knn")
"""Scores that do not: what a sceptic would try first."""
CHUNK = 4096


class Scaled(NamedTuple):
    """A dictionary with the centre and scale of what it was trained on."""

    sae: AffineSAE
    """Reads centred activations divided by the scale."""
    centre: Float[Tensor, " d_model"]
    """Mean of the training activations."""
    scale: float
    """Root of their total variance."""

    def inputs(self, acts: Acts) -> Acts:
        """Activations as the dictionary reads them."""
        return (acts - self.centre) / self.scale


def recipe_of(
    architecture: str,
    *,
    width: int,
    k: int,
    steps: int,
    seed: int,
    lr: float,
    batch: int = 512,
    sparsity: float | None = None,
) -> TrainConfig:
    """A recipe for `train_on_points`: so many steps of `batch` points, everything drawn by one seed, no scaling of its own."""
    return TrainConfig(
        architecture=architecture,
        width=width,
        k=k,
        tokens=steps * batch,
        batch=batch,
        seed=seed,
        data_seed=seed,
        lr=lr,
        sparsity=sparsity,
        normalise="none",
    )


def train_on_points(acts: Acts, config: TrainConfig) -> Scaled:
    """Train a dictionary on a tensor of activations, centred and divided by the root of their total variance.

    Batches are drawn with replacement by `config.data_seed`; `config.steps` of them.
    """
    centre = acts.mean(0)
    scale = float((acts - centre).square().sum(1).mean().sqrt())
    rows = (acts - centre) / scale
    trainer = Trainer(config, 1.0, torch.zeros(acts.shape[1]))
    draw = generator(config.data_seed)
    for _ in range(config.steps):
        trainer.advance(rows[torch.randint(0, rows.shape[0], (config.batch,), generator=draw)])
    sae = trainer.sae
    assert isinstance(sae, AffineSAE)
    sae.settle(rows[:CHUNK], config.k)
    return Scaled(sae.requires_grad_(requires_grad=False).eval(), centre, scale)


def evidence_of(sae: AbstractSAE, acts: Acts, least: float = 0.0) -> Evidence:
    """Points as prompts of one token each; codes at or below `least` count as silent."""
    with torch.no_grad():
        output = sae(acts)
    codes = output.codes
    if least > 0:
        codes = Codes(codes.indices, codes.values.where(codes.values > least, codes.values.new_zeros(())), codes.width)
    rows = torch.arange(acts.shape[0])
    nothing = torch.zeros_like(rows)
    ones = torch.ones(acts.shape[0])
    return Evidence(acts.float(), codes, output.reconstruction, nothing, nothing, rows, ones, None, None)


@final
class PointMeter:
    """Detectors fitted on clean points. Higher = further."""

    def __init__(self, made: AbstractSAE | Scaled, clean: Acts, names: Sequence[str], *, least: float = 0.0) -> None:
        """`names`: of `DETECTORS`. A dictionary that was scaled gets points as they are. Errors: `TooFewSamples`, `WidthMismatch`."""
        self.made, self.least = made, least
        self.sae: AbstractSAE = made.sae if isinstance(made, Scaled) else made
        profile = Profile.empty(clean.shape[1], self.sae.d_sae, 1, 0)
        for some in clean.split(CHUNK):
            profile.update(self._evidence(some))
        self.detectors: dict[str, AbstractDetector] = {name: DETECTORS[name].fit(profile) for name in names}

    def _evidence(self, acts: Acts) -> Evidence:
        return evidence_of(self.sae, self.made.inputs(acts) if isinstance(self.made, Scaled) else acts, self.least)

    def scores(self, acts: Acts, names: Sequence[str] = ()) -> dict[str, Float[Tensor, " point"]]:
        """Each score of each point, or only some; `norm` is that of the point itself, before it is centred and scaled."""
        parts = [self._evidence(some) for some in acts.split(CHUNK)]
        found = {
            name: torch.cat([self.detectors[name].score(part).float() for part in parts])
            for name in names or self.detectors
        }
        return found | ({"norm": acts.float().norm(dim=1)} if "norm" in found else {})

    def by_place(self, acts: Float[Tensor, "row place d_model"]) -> dict[str, Float[Tensor, "row place"]]:
        """Each score of each place of each row."""
        return {name: values.view(acts.shape[:2]) for name, values in self.scores(acts.flatten(0, 1)).items()}


def aurocs(metric: str, clean: dict[str, Tensor], shifted: dict[str, Tensor]) -> list[Measured]:
    """Chance that a shifted point scores above a clean one, a score each, with DeLong's interval."""
    return [
        Measured.within(metric, auroc_interval(values, shifted[name], pairs=False), name)
        for name, values in clean.items()
    ]
