"""Evaluations of dictionaries, one file each, listed in `SAE_EVALS`."""

from typing import Final

from perimetry.evals.sae.absorption import Absorption
from perimetry.evals.sae.base import AbstractEvaluation, Metric, Place, Subject
from perimetry.evals.sae.fidelity import Fidelity
from perimetry.evals.sae.ground_truth import GroundTruth
from perimetry.evals.sae.ood_probing import OodProbing
from perimetry.evals.sae.probing import Probing
from perimetry.evals.sae.scr import SpuriousCorrelationRemoval
from perimetry.evals.sae.stability import Stability
from perimetry.evals.sae.tpp import TargetedProbePerturbation

__all__ = ["HEADLINES", "SAE_EVALS", "AbstractEvaluation", "Metric", "Place", "Subject"]

SAE_EVALS: Final[dict[str, type[AbstractEvaluation]]] = {
    cls.name: cls
    for cls in (
        Fidelity,
        Absorption,
        Probing,
        OodProbing,
        GroundTruth,
        Stability,
        TargetedProbePerturbation,
        SpuriousCorrelationRemoval,
    )
}
"""The evaluations by name."""
HEADLINES: Final[dict[str, tuple[str, ...]]] = {
    "fidelity": ("explained_variance", "loss_recovered", "l0"),
    "absorption": ("full_absorption", "absorption_fraction", "main_f1"),
    "probing": ("auroc",),
    "ood_probing": ("auroc_ood", "gap"),
    "ground_truth": ("f1", "mcc", "uniqueness", "explained_variance"),
    "stability": ("cosine", "twins_70"),
}
"""Evaluation -> the metrics that stand in front; an evaluation that the field found unreliable has none."""
