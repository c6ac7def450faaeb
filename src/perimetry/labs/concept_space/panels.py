"""The figures of the lab `concept-space`."""

from collections.abc import Mapping

from perimetry.labs.base import Job, Outcome, Panel
from perimetry.labs.lines import medians

__all__ = ["hidden", "sooner", "theory", "way"]


def way(found: Mapping[Job, Outcome]) -> Panel:
    """What is made of the combination that was never trained on."""
    names = {
        f"{what}, colours {signal} apart": ("images", f"{curve}, signal {signal}")
        for signal in ("0.2", "0.8")
        for what, curve in (("blue", "blue"), ("small", "small"))
    }
    return Panel(
        "concept-way",
        "Small blue, which was never trained on: what is learned first",
        "step",
        "chance that the image shows it",
        medians(found, names),
        caption="The concept with the stronger signal comes first, and the order turns with the signal.",
    )


def sooner(found: Mapping[Job, Outcome]) -> Panel:
    """Time of colour by its signal."""
    return Panel(
        "concept-time",
        "The further apart two colours lie, the sooner they are told apart",
        "difference of the channels",
        "step at which blue is made",
        medians(found, {"colour": ("images", "time")}),
    )


def theory(found: Mapping[Job, Outcome]) -> Panel:
    """The same where there is a theory."""
    return Panel(
        "concept-theory",
        "Steps until a concept is learned, by its strength",
        "strength; that of the other concept is 1",
        "step",
        medians(found, {"linear": ("theory_linear", "time"), "two layers of ReLU": ("theory_mlp", "time")}),
    )


def hidden(found: Mapping[Job, Outcome]) -> Panel:
    """Plain and pushed prompts, and what the meter says meanwhile."""
    names = {
        "plain prompt": ("images", "blue, signal 0.3"),
        "pushed twice": ("images", "pushed 2, signal 0.3"),
        "AUROC of the condition, surprise": ("images", "AUROC of 11, signal 0.3"),
    }
    return Panel(
        "concept-hidden",
        "Unsupported, and right all the same",
        "step",
        "chance of blue; AUROC",
        medians(found, names),
        level=0.5,
        caption="A score of the condition stays high while the image becomes right: shift is not failure.",
    )
