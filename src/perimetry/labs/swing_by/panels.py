"""The figures of the lab `swing-by`."""

from collections.abc import Mapping, Sequence

from perimetry.labs.base import Job, Outcome, Panel
from perimetry.labs.lines import medians

__all__ = ["WATCHED", "counted", "decomposed", "swing", "watched"]

ARMS = {
    "4 linear layers": "deep_linear",
    "4 layers, ReLU": "deep_relu",
    "1 layer": "net_one_layer",
    "2 layers, usual start": "net_two_default",
}
WATCHED = tuple(ARMS.values())
"""Networks whose output is read by a dictionary while they learn."""


def swing(found: Mapping[Job, Outcome]) -> Panel:
    """Loss at the test point over training."""
    lines = medians(found, {name: (arm, "loss") for name, arm in ARMS.items()})
    return Panel(
        "swing-by-loss",
        "Loss on a composition that was never trained on",
        "step",
        "loss at the test point",
        lines,
        caption="Medians over seeds; bands from the least to the greatest. Deep networks from small weights learn the composition, lose part of "
        "it, and learn it again, while the loss on what they are trained on falls all the time.",
    )


def decomposed(found: Mapping[Job, Outcome]) -> Panel:
    """What moves one entry of two mirrored layers."""
    arm = "two_layers_1_2"
    names = ("growth", "suppression", "off the diagonal")
    lines = medians(found, {name: (arm, name) for name in names})
    return Panel(
        "swing-by-theory",
        "Why: the entry that takes the strong concept to the weak one",
        "step",
        "size",
        lines,
        caption="Two mirrored layers, exact averages. The entry grows at first and helps; once the strong concept is learned it is held down, "
        "before the weak one is there.",
    )


def counted(found: Mapping[Job, Outcome], penalties: Sequence[float]) -> Panel:
    """Active latents by the number of concepts."""
    lines = medians(
        found,
        {f"{site}, penalty {p:g}": ("count", f"count, {site}, {p:g}") for site in ("hidden", "x") for p in penalties},
    )
    return Panel(
        "swing-by-count",
        "Active latents by the true number of concepts",
        "concepts in the input",
        "active latents",
        lines,
        caption="The count grows with the number of concepts, and it is not that number.",
    )


def watched(found: Mapping[Job, Outcome]) -> Panel:
    """Active latents of the output at the test point over training."""
    lines = medians(found, {name: (arm, "count") for name, arm in ARMS.items()})
    return Panel(
        "swing-by-watched",
        "Active latents of the output for two concepts, while the network learns",
        "step",
        "active latents",
        lines,
        caption="By a dictionary of the inputs. Does the count fall where the loss rises?",
    )
