"""The health check where the truth is known: do its readings, and the mean score of unchanged text, tell what an edit has cost?"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.labs.base import Measured
from perimetry.labs.knowledge_editing.measures import r_squared
from perimetry.labs.knowledge_editing.summary import Row, ring
from perimetry.labs.points import BASELINES, CONCEPTS
from perimetry.measures.ranking import auroc_interval
from perimetry.measures.stats import Interval, bootstrap, spearman
from perimetry.runtime import generator

__all__ = ["HARMFUL", "HARMLESS", "READINGS", "calibrated"]

HARMLESS: Final = 0.03
HARMFUL: Final = 0.1
"""Direct accuracy lost, mean over orders: below the one nothing is wrong, above the other something is."""
WHOLE: Final = "every edit"
UNKNOWN: Final = Interval(0.5, 0.0, 1.0, 0, "no edit of one of the two kinds")
RESAMPLES: Final = 100
READINGS: Final[Mapping[str, Callable[[Row], float]]] = {
    "R": ring("I"),
    "R at the entity": ring("entity"),
    "scale-free R": lambda row: row.read.rings["I"].r_scaled,
    "change of size": lambda row: abs(row.read.rings["I"].scale - 1),
    "order": lambda row: -row.read.order,
    "loss of text": lambda row: row.read.nll,
    "size of the update": lambda row: row.size,
}
"""Readings of the check; more is worse."""
LOST: Final[Mapping[str, Callable[[Row], float]]] = {
    "direct": lambda row: row.read.direct,
    "siblings": lambda row: row.read.siblings,
}
OTHERS: Final = (*BASELINES, "nll")
"""Mean scores that read no concepts."""


def calibrated(rows: Sequence[Row], seed: int) -> list[Measured]:
    """Rank correlation of each reading with the accuracy lost (bootstrap over facts), areas, and what the meter explains."""
    edits = [r for r in rows if not r.drawn and r.distance]
    pools = {WHOLE: edits, "ROME": [r for r in edits if r.editor == "ROME"]}
    pools["edits and drawn updates"] = [r for r in rows if r.distance]
    found: list[Measured] = []
    for pool, own in pools.items():
        columns = {name: _column(own, value) for name, value in READINGS.items()}
        lost = {name: _column(own, value) for name, value in LOST.items()}
        if pool == WHOLE:
            columns |= {f"mean {name}": _column(own, lambda r, n=name: r.shift[n]) for name in own[0].shift}
        facts = torch.tensor([r.fact for r in own])
        found += _ranked(columns, lost, facts, pool, seed)
        found += _told(columns, lost["direct"], pool)
    return [*found, *_explained(edits)]


def _column(rows: Sequence[Row], value: Callable[[Row], float]) -> Float[Tensor, " edit"]:
    return torch.tensor([value(r) for r in rows], dtype=torch.float64)


def _ranked(
    columns: Mapping[str, Tensor], lost: Mapping[str, Tensor], facts: Tensor, pool: str, seed: int
) -> list[Measured]:
    own = {int(fact): (facts == fact).nonzero()[:, 0] for fact in facts.unique()}
    units = torch.tensor(list(own))
    found: list[Measured] = []
    for name, column in columns.items():
        for what, wanted in lost.items():

            def correlation(some: Tensor, column: Tensor = column, wanted: Tensor = wanted) -> float:
                rows = torch.cat([own[fact] for fact in some.tolist()])
                return spearman(column[rows], wanted[rows]).estimate

            box = bootstrap(units, correlation, generator(seed), RESAMPLES)
            found.append(Measured.within("rank correlation with the accuracy lost", box, f"{name}, {what}, {pool}"))
    return found


def _told(columns: Mapping[str, Tensor], lost: Tensor, pool: str) -> list[Measured]:
    """AUROC of harmful edits against harmless ones."""
    harmless, harmful = lost < HARMLESS, lost > HARMFUL
    counts = [
        Measured("edits", float(harmless.sum()), f"harmless, {pool}"),
        Measured("edits", float(harmful.sum()), f"harmful, {pool}"),
    ]
    both = int(harmless.sum()) > 1 and int(harmful.sum()) > 1
    return counts + [
        Measured.within(
            "AUROC of harm",
            auroc_interval(column[harmless], column[harmful], pairs=False) if both else UNKNOWN,
            f"{name}, {pool}",
        )
        for name, column in columns.items()
    ]


def _explained(edits: Sequence[Row]) -> list[Measured]:
    """Share of the variance of R and of the siblings' loss that the mean score of unchanged text explains, alone and beyond the baselines."""
    wanted = {"R": _column(edits, ring("I")), "siblings lost": _column(edits, LOST["siblings"])}
    wanted["direct lost"] = _column(edits, LOST["direct"])
    shifts = {name: _column(edits, lambda r, n=name: r.shift[n]) for name in (*CONCEPTS, *BASELINES)}
    shifts["nll"] = _column(edits, lambda r: r.read.nll)
    base = torch.stack([shifts[name] for name in OTHERS], 1)
    found: list[Measured] = []
    for what, own in wanted.items():
        known = r_squared(base, own)
        found.append(Measured(f"r2 with {what}", known, "norm, mahalanobis, knn and nll together"))
        for name, column in shifts.items():
            found.append(Measured(f"r2 with {what}", r_squared(column[:, None], own), name))
            if name in CONCEPTS:
                both = r_squared(torch.cat([base, column[:, None]], 1), own)
                found.append(Measured(f"r2 with {what}, beyond the baselines", both - known, name))
    return found
