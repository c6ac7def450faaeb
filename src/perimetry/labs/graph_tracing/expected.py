"""What must come out of the lab `graph-tracing`, said before it was run. Numbers in the sentences are those of the study or of its rebuild."""

from perimetry.labs.base import Asked, Column, Expectation
from perimetry.labs.points import BASELINES, CONCEPTS

__all__ = ["ASKED", "EXPECTED"]

_COPY = {10: 0.71, 30: 0.86, 100: 0.995, 200: 0.997, 400: 1.0}
_COUNT = {10: 0.24, 30: 0.29, 100: 0.415, 200: 0.55, 400: 0.685}
_SHAPES = {
    ("grid 4x4", "drawn"): (3.19, -0.04),
    ("grid 4x4", "one step"): (1.82, 0.84),
    ("grid 4x4", "spectral"): (0.586, 0.95),
    ("ring 10", "drawn"): (2.24, -0.08),
    ("ring 10", "one step"): (0.91, 0.95),
    ("ring 10", "spectral"): (0.382, 0.97),
}
_BASELINES = (
    *(
        Expectation(
            "baselines",
            "valid share",
            f"{name} gives {value:g} at step {t}",
            round(value - 0.03, 3),
            round(min(value + 0.03, 1.0), 3),
            f"{name}, step {t}",
        )
        for name, table in (("copying", _COPY), ("counting", _COUNT))
        for t, value in table.items()
    ),
    *(
        Expectation(
            "baselines",
            metric,
            f"states that are {kind} have the {what} {value:g} on a {graph}",
            round(value - 0.05, 3),
            round(value + 0.05, 3),
            f"{graph}, {kind}",
        )
        for (graph, kind), both in _SHAPES.items()
        for metric, what, value in zip(("energy", "plane"), ("energy", "correlation of the plane"), both, strict=True)
        # States that are drawn scatter from seed to seed.
        if kind != "drawn"
    ),
)
_SCRATCH = (
    Expectation(
        "scratch",
        "valid share",
        "a walker from scratch obeys the graph after a hundred steps (.92)",
        0.85,
        None,
        "trained",
    ),
    Expectation("scratch", "back", "and hardly ever goes back", None, 0.05, "trained"),
)
_REAL = (
    Expectation(
        "real",
        "valid share",
        "the small real model obeys the graph more and more (.47 after 390 steps)",
        0.4,
        None,
        "nonbacktracking, late",
    ),
    Expectation("real", "valid share forward", "going back apart as well (.45)", 0.35, None, "nonbacktracking, late"),
    Expectation("real", "valid share", "not on shuffled words (.18)", None, 0.22, "shuffled, late"),
    Expectation("real", "plane", "and shows no visible grid", None, 0.2, "nonbacktracking, best block"),
)
_CONTROLS = (
    Expectation(
        "scratch", "valid share", "an untrained walker does not obey the graph", 0.12, 0.26, "untrained", control=True
    ),
    Expectation(
        "scratch",
        "valid share",
        "nor does a trained one where every step is a jump (.19 is chance)",
        None,
        0.2375,
        "teleport 1",
        control=True,
    ),
    Expectation(
        "scratch",
        "valid share",
        "nor on walks whose order was lost",
        None,
        0.2375,
        "shuffled",
        control=True,
    ),
    Expectation(
        "scratch", "energy", "whose states have no shape of the graph", 2.9, 3.5, "shuffled, block 1", control=True
    ),
    Expectation("scratch", "energy", "untrained states have none either", 2.9, 3.5, "untrained, block 0", control=True),
    Expectation(
        "scratch",
        "energy",
        "and trained states none of another graph",
        1.2,
        None,
        "trained, block 1, by a ring",
        control=True,
    ),
    Expectation(
        "scratch",
        "AUROC of known again",
        "walks of the family are not told from themselves",
        0.35,
        0.65,
        "energy",
        control=True,
    ),
)
EXPECTED = (*_BASELINES, *_SCRATCH, *_REAL, *_CONTROLS)

_KINDS = {
    "ring 10": "ring of 10, trained on",
    "ring 13": "ring of 13, never seen",
    "ring 13 against ring 10": "the same against the ring of 10",
    "hexagons": "hexagons",
    "tree": "tree",
    "star": "star",
    "teleport .1": "jumps, .1",
    "teleport .3": "jumps, .3",
    "shuffled": "order lost",
    "unused token": "token that was never a node",
    "longer walks": "longer walks",
    "known again": "control: the family again",
}
_SCORES = (*CONCEPTS, *BASELINES, "nll", "entropy", "repetition")
ASKED = (
    Asked(
        "What does a score see of walks outside the family that a transformer from scratch was trained on?",
        "AUROC of the mean over a walk against walks on the grid; .5: no use.",
        tuple(Column(name, "scratch", f"AUROC of {kind}") for kind, name in _KINDS.items()),
        _SCORES,
    ),
    Asked(
        "In the small real model, does a score rise while a graph is learned, or with the length of any list?",
        "Rank correlation of the score with the step, the norm apart. The lists have no graph; the shuffled one has the same words.",
        (
            Column("walk", "real", "score follows the step", "{score}, walk"),
            Column("shuffled list", "real", "score follows the step", "{score}, list"),
            Column("ordinary words", "real", "score follows the step", "{score}, words"),
        ),
        _SCORES,
    ),
    Asked(
        "How soon does it see that the graph was exchanged?",
        "Steps after the exchange until the mean of eight lies above 95 % of those before, and the share of walks in which it ever does; chance is many steps.",
        (
            Column("delay, exchanged", "real", "detection delay", "{score}"),
            Column("delay, nothing exchanged", "real", "detection delay", "{score}, no switch"),
            Column("seen, exchanged", "real", "switch detected", "{score}"),
            Column("seen, nothing exchanged", "real", "switch detected", "{score}, no switch"),
        ),
        _SCORES,
    ),
)
