"""The figures of the lab `graph-tracing`."""

from collections.abc import Mapping

from perimetry.labs.base import Job, Outcome, Panel
from perimetry.labs.lines import medians

__all__ = ["drift", "followed_real", "followed_scratch"]


def followed_scratch(found: Mapping[Job, Outcome]) -> Panel:
    """How a walker from scratch comes to obey the graph."""
    names = {n: n for n in ("trained", "shuffled", "teleport 1", "untrained", "counting")}
    return Panel(
        "graph-scratch",
        "A transformer from scratch on walks with new names",
        "step of the walk",
        "chance of a neighbour, among the nodes",
        medians(found, {n: ("scratch", curve) for n, curve in names.items()}),
        caption="Every walk has new names. Counting its own steps is what a reader without knowledge of such graphs could do.",
    )


def followed_real(found: Mapping[Job, Outcome]) -> Panel:
    """The same of the small real model."""
    names = {n: n for n in ("nonbacktracking", "uniform", "shuffled")}
    names |= {f"counting, {n}": f"counting, {n}" for n in ("nonbacktracking", "uniform")}
    return Panel(
        "graph-real",
        "A small real model on walks over words",
        "step of the walk",
        "chance of a neighbour, among the nodes",
        medians(found, {n: ("real", curve) for n, curve in names.items()}),
        caption="Counting the steps of the same walks is drawn beside it: what lies below that line needs no graph.",
    )


def drift(found: Mapping[Job, Outcome]) -> Panel:
    """The score over the context, with and without a graph."""
    names = {"a walk": "energy, walk", "the same words shuffled": "energy, list", "ordinary words": "energy, words"}
    return Panel(
        "graph-drift",
        "Does the shift score rise while a graph is learned?",
        "step",
        "energy at a middle block",
        medians(found, {n: ("real", curve) for n, curve in names.items()}),
        caption="The lists have no graph: a rise that they share is one of the length of the list.",
    )
