"""The figures of the lab `graph-tracing`."""

from collections.abc import Mapping

from perimetry.labs.base import Job, Line, Outcome, Panel
from perimetry.labs.lines import middle, several

__all__ = ["drift", "followed_real", "followed_scratch"]


def _lines(found: Mapping[Job, Outcome], arm: str, names: Mapping[str, str]) -> list[Line]:
    return [line for name, curve in names.items() for line in middle(name, several(found, arm, curve))]


def followed_scratch(found: Mapping[Job, Outcome]) -> Panel:
    """How a walker from scratch comes to obey the graph."""
    names = {n: n for n in ("trained", "shuffled", "teleport 1", "untrained", "counting")}
    return Panel(
        "graph-scratch",
        "A transformer from scratch on walks with new names",
        "step of the walk",
        "chance of a neighbour, among the nodes",
        _lines(found, "scratch", names),
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
        _lines(found, "real", names),
        caption="Counting the steps of the same walks is drawn beside it: what lies below that line needs no graph.",
    )


def drift(found: Mapping[Job, Outcome]) -> Panel:
    """The score over the context, with and without a graph."""
    names = {"a walk": "energy, walk", "the same words shuffled": "energy, list"}
    return Panel(
        "graph-drift",
        "Does the shift score rise while a graph is learned?",
        "step",
        "energy at a middle block",
        _lines(found, "real", names),
        caption="The shuffled list has the same words and no graph: what both do is the length of the list.",
    )
