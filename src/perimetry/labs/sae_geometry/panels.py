"""The figures of the lab `sae-geometry`."""

from collections.abc import Mapping

from perimetry.labs.base import Job, Outcome, Panel
from perimetry.labs.lines import medians

__all__ = ["clusters", "dimensions", "turned"]


def clusters(found: Mapping[Job, Outcome]) -> Panel:
    """How well each cluster of world A is seen."""
    arms = {
        "SpaDE": "a_spade",
        "ReLU": "a_relu",
        "JumpReLU": "a_jumprelu",
        "TopK 18": "a_topk_18",
        "TopK 2": "a_topk_2",
        "softmax": "a_softmax",
    }
    return Panel(
        "geometry-clusters",
        "Which clusters a dictionary sees",
        "cluster; even ones lie outside, odd ones inside the hull of the others",
        "F1 of the five best latents",
        medians(found, {name: (arm, "F1") for name, arm in arms.items()}),
        caption="Half-spaces see what lies outside and miss what lies inside; regions around prototypes see both.",
    )


def dimensions(found: Mapping[Job, Outcome]) -> Panel:
    """Active latents by the dimension of a cluster."""
    arms = {
        "SpaDE": "b_spade",
        "TopK 4": "b_topk_4",
        "TopK 10": "b_topk_10",
        "TopK 20": "b_topk_20",
        "SpaDE, light": "b_spade_light",
    }
    return Panel(
        "geometry-dimensions",
        "Active latents by the dimension of the cluster",
        "intrinsic dimension",
        "active latents",
        medians(found, {name: (arm, "active latents") for name, arm in arms.items()}),
        caption="SpaDE's count follows the dimension; that of TopK is what it was told.",
    )


def turned(found: Mapping[Job, Outcome]) -> Panel:
    """Scores on a support that turns away."""
    names = ("recon_error", "energy", "l0", "mahalanobis", "knn", "norm", "exact likelihood")
    lines = medians(found, {name: ("b_spade", name) for name in names})
    return Panel(
        "geometry-turned",
        "A cluster whose support is turned, centre and size the same",
        "angle, degrees",
        "AUROC",
        lines,
        level=0.5,
        caption="Scores of a SpaDE dictionary and of detectors without one. Dotted: no use.",
    )
