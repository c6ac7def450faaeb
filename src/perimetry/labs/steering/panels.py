"""The figures of the lab `steering`."""

from collections.abc import Mapping

from perimetry.labs.base import Job, Outcome, Panel
from perimetry.labs.lines import medians
from perimetry.labs.steering.personas import BEHAVIOURS

__all__ = ["distance", "dose", "personas"]


def dose(found: Mapping[Job, Outcome]) -> Panel:
    """Contrast by the dose of the planted direction."""
    pairs = {"planted in training": ("toy", "contrast"), "never used in training": ("toy_unpushed", "contrast")}
    return Panel(
        "steering-dose",
        "A direction steers where the model has learned to use it",
        "length of the push",
        "contrast, nats a token",
        medians(found, pairs),
        level=0.0,
        caption="Likelihood of positive answers minus that of negative ones, against no push.",
    )


def distance(found: Mapping[Job, Outcome]) -> Panel:
    """What scores see of the same pushes."""
    names = ("bernoulli", "l0", "energy", "recon_error", "mahalanobis", "knn", "norm", "nll")
    return Panel(
        "steering-distance",
        "How far a push leaves what the site usually holds",
        "length of the push",
        "AUROC",
        medians(found, {name: ("toy", f"AUROC, {name}") for name in names}),
        level=0.5,
        caption="A score says how far an intervention goes, not whether it steers.",
    )


def personas(found: Mapping[Job, Outcome]) -> Panel:
    """Contrast by multiplier on the real model."""
    return Panel(
        "steering-real",
        "Contrastive activations on a small real model",
        "multiplier",
        "contrast, nats a token",
        medians(found, {name: (f"real_{name}", "contrast") for name in BEHAVIOURS}),
        level=0.0,
        caption="Continuations were written by the model itself under two personas and scored without them.",
    )
