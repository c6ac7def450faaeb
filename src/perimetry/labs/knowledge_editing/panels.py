"""The figures of the lab `knowledge-editing`."""

from collections.abc import Mapping

from perimetry.labs.base import Job, Outcome, Panel
from perimetry.labs.lines import medians

__all__ = ["distances", "lost", "meter", "mixed"]


def distances(found: Mapping[Job, Outcome], arm: str) -> Panel:
    """R of the edited order by how far the new answer lies."""
    names = (
        "ROME",
        "r-ROME",
        "MEMIT",
        "ROME, C = I",
        "ROME, C of few keys",
        "ROME, first block",
        "r-ROME, first block",
    )
    return Panel(
        "editing-shattering",
        "How far one edit moves the representations of all entities",
        "steps from the old answer to the new one",
        "R of the edited order",
        medians(found, {name: (arm, f"R of I, {name}") for name in names}),
        log_y=True,
        caption="With a sound covariance in the second block nothing shatters; without one, or in the first block, everything moves.",
    )


def lost(found: Mapping[Job, Outcome], arm: str) -> Panel:
    """What is lost by R."""
    names = {"edits": "edits", "drawn updates": "drawn"}
    return Panel(
        "editing-lost",
        "What an edit costs, by how far it moved the ring",
        "R of the edited order",
        "direct accuracy lost",
        medians(found, {name: (arm, f"accuracy lost by R, {curve}") for name, curve in names.items()}),
        log_x=True,
        caption="Edits of every kind and size, in sixteen groups by R.",
    )


def meter(found: Mapping[Job, Outcome], arm: str) -> Panel:
    """The mean score of unchanged text by R."""
    names = {"edits": "edits", "drawn updates": "drawn"}
    return Panel(
        "editing-meter",
        "Surprise of unchanged text through edited weights",
        "R of the edited order",
        "mean Bernoulli score, after less before",
        medians(found, {name: (arm, f"bernoulli by R, {curve}") for name, curve in names.items()}),
        log_x=True,
        level=0.0,
    )


def mixed(found: Mapping[Job, Outcome]) -> Panel:
    """How mixed keys blow an update up."""
    return Panel(
        "editing-keys",
        "What mixing the plain key with the mean one costs",
        "overlap of the two in the metric of the covariance",
        "norm of the update, in that of r-ROME",
        medians(found, {"ROME as released": ("algebra", "mixed keys")}),
        log_x=True,
        log_y=True,
    )
