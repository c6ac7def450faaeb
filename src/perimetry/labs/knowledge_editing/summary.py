"""From the readings of many edits to the numbers of a seed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from perimetry.editing.health import FLAGS, flag_of
from perimetry.labs.base import Curve, Measured
from perimetry.labs.knowledge_editing.attachment import LABELS
from perimetry.labs.knowledge_editing.editors import EDITORS
from perimetry.labs.knowledge_editing.measures import Reading, r_squared
from perimetry.labs.knowledge_editing.world import FAR, KINDS, ORDERS
from perimetry.labs.points import aurocs
from perimetry.measures.stats import Interval, mean_interval, spearman

__all__ = ["Both", "Row", "areas", "curves_of", "numbers_of", "of_editor"]

PLAIN: Final = "ROME"
SOUND: Final = tuple(name for name, editor in EDITORS.items() if (editor.block, editor.metric) == (1, "text"))
"""Editors whose updates are small, so that R of a drawn one of that norm is in proportion to it."""
Scores = Mapping[str, Mapping[str, Tensor]]
Both = tuple[Scores, Scores]
"""Label -> score -> its values, before an edit and after it."""


class Row(NamedTuple):
    """One edit, or one drawn update in its place."""

    fact: int
    """Which request."""
    distance: int
    """Steps from the old answer to the new one; 0 = put right."""
    editor: str
    """Name in `EDITORS`."""
    scale: float
    """How many times the update was added."""
    drawn: bool
    """Whether a drawn matrix of the same norm stands for it."""
    size: float
    """Norm of what was added over that of the matrix."""
    read: Reading
    """What it did."""
    shift: dict[str, float]
    """Mean of each score on unchanged text, after less before."""


def of_editor(rows: Iterable[Row], editor: str, *, drawn: bool = False, scale: float = 1.0) -> list[Row]:
    """The edits of one editor, those that put something right left out."""
    return [r for r in rows if (r.editor, r.drawn, r.scale) == (editor, drawn, scale) and r.distance]


def mean_of(rows: Sequence[Row], value: Callable[[Row], float]) -> Interval:
    """Mean over edits, with its interval where there are several."""
    values = torch.tensor([value(r) for r in rows], dtype=torch.float64)
    if len(values) < 2:
        return Interval(float(values[0]), float(values[0]), float(values[0]), 1, "one edit")
    return mean_interval(values)


def ring(name: str) -> Callable[[Row], float]:
    """R of an order, or of the entity alone."""
    return lambda row: row.read.rings[name].r


def numbers_of(rows: Sequence[Row]) -> list[Measured]:
    """What each editor does."""
    plain = mean_of(of_editor(rows, PLAIN), ring("I")).estimate
    found: list[Measured] = []
    for name in dict.fromkeys(r.editor for r in rows):
        own, drawn = of_editor(rows, name), of_editor(rows, name, drawn=True)
        found += [*_numbers(name, own), *_numbers(f"drawn for {name}", drawn)]
        r = {order: mean_of(own, ring(order)).estimate for order in ORDERS}
        usual = {order: mean_of(drawn, ring(order)).estimate for order in ORDERS}
        found += [Measured(f"X of {order}", r[order] / usual[order], name) for order in ORDERS if usual[order] > 0]
        found.append(Measured("R over that of ROME", r["I"] / plain, name))
        right = [row for row in rows if row.editor == name and not row.drawn and not row.distance]
        found += _numbers(f"{name}, put right", right) if right else []
    for scale in sorted({r.scale for r in rows if r.editor == PLAIN and not r.drawn} - {1.0}):
        found += _numbers(f"{PLAIN}, {scale:g} times", of_editor(rows, PLAIN, scale=scale))
    return [*found, *_laws(rows)]


def _numbers(name: str, rows: Sequence[Row]) -> list[Measured]:
    """Means over edits of one kind."""
    by_distance = {d: [r for r in rows if r.distance == d] for d in range(1, FAR + 1)}
    by_distance = {d: own for d, own in by_distance.items() if own}
    measured = [
        Measured.within("success", mean_of(rows, lambda r: r.read.success), name),
        Measured.within("size of the update", mean_of(rows, lambda r: r.size), name),
        Measured.within("scale-free R", mean_of(rows, lambda r: r.read.rings["I"].r_scaled), name),
        Measured.within("size of distances", mean_of(rows, lambda r: r.read.rings["I"].scale), name),
        Measured.within("order of distances", mean_of(rows, lambda r: r.read.order), name),
        Measured.within("loss of text", mean_of(rows, lambda r: r.read.nll), name),
        Measured.within("accuracy lost", mean_of(rows, lambda r: r.read.direct), f"{name}, direct"),
        Measured.within("accuracy lost", mean_of(rows, lambda r: r.read.siblings), f"{name}, siblings"),
        Measured.within("accuracy lost", mean_of(rows, lambda r: r.read.cousins), f"{name}, same entity"),
    ]
    for order in (*ORDERS, "entity"):
        measured.append(Measured.within(f"R of {order}", mean_of(rows, ring(order)), name))
        for distance, own in by_distance.items():
            measured.append(Measured.within(f"R of {order}", mean_of(own, ring(order)), f"{name}, d {distance}"))
    lost = {
        (order, kind): mean_of(rows, lambda r, key=(order, kind): r.read.lost[key])
        for order, kind in (rows[0].read.lost if rows else ())
    }
    measured += [Measured.within("accuracy lost", own, f"{name}, {o}, {kind}") for (o, kind), own in lost.items()]
    for distance, own in by_distance.items():
        measured.append(
            Measured.within("accuracy lost", mean_of(own, lambda r: r.read.direct), f"{name}, direct, d {distance}")
        )
    most = [mean_of(own, ring(order)).estimate for own in (by_distance or {0: rows}).values() for order in ORDERS]
    flags = [flag_of(r.read.rings["I"]) for r in rows]
    return [
        *measured,
        Measured("largest R of all orders and distances", max(most), name),
        Measured("most direct accuracy lost of all orders", max(lost[o, KINDS[0]].estimate for o in ORDERS), name),
        *(Measured(f"flag: {flag}", flags.count(flag) / len(flags), name) for flag in FLAGS),
    ]


def _laws(rows: Sequence[Row]) -> list[Measured]:
    """Whether R says what is lost, and whether distance matters to drawn updates."""
    last = [name for name, editor in EDITORS.items() if editor.block == 1]
    kinds = {
        PLAIN: of_editor(rows, PLAIN),
        f"{PLAIN}, every scale": [r for r in rows if r.editor == PLAIN and not r.drawn and r.distance],
        "drawn": [r for name in last for r in of_editor(rows, name, drawn=True)],
        "drawn for ROME": of_editor(rows, PLAIN, drawn=True),
    }
    measured = [Measured("r2 of R and the direct accuracy lost", _law(own), name) for name, own in kinds.items() if own]
    matched = [r for name in SOUND for r in of_editor(rows, name, drawn=True)]
    distance = torch.tensor([float(r.distance) for r in matched])
    unit = torch.tensor([ring("I")(r) / r.size for r in matched], dtype=torch.float64)
    return [*measured, Measured.within("rank correlation of R a norm and d", spearman(unit, distance), "drawn")]


def _law(rows: Sequence[Row]) -> float:
    r = torch.tensor([[ring("I")(row)] for row in rows], dtype=torch.float64)
    return r_squared(r, torch.tensor([row.read.direct for row in rows], dtype=torch.float64))


def areas(scored: Mapping[str, Sequence[Both]]) -> list[Measured]:
    """AUROC of each score under each dial: the same prompts before and after an edit, by how far they are from the edited fact."""
    found: list[Measured] = []
    for dial, pairs in scored.items():
        for label in LABELS:
            before, after = (
                {name: torch.cat([both[side][label][name] for both in pairs]) for name in pairs[0][0][label]}
                for side in (0, 1)
            )
            found += [m._replace(case=f"{m.case}, {label}, {dial}") for m in aurocs("AUROC of an edit", before, after)]
    return found


def curves_of(rows: Sequence[Row]) -> dict[str, Curve]:
    """R by distance, and what is lost by R."""
    curves: dict[str, Curve] = {}
    for name in dict.fromkeys(r.editor for r in rows):
        own = of_editor(rows, name)
        by = {d: [r for r in own if r.distance == d] for d in sorted({r.distance for r in own})}
        for order in ORDERS:
            ys = [mean_of(some, ring(order)).estimate for some in by.values()]
            curves[f"R of {order}, {name}"] = Curve([float(d) for d in by], ys)
    for name, some in (
        ("edits", [r for r in rows if not r.drawn and r.distance]),
        ("drawn", [r for r in rows if r.drawn and r.distance]),
    ):
        some.sort(key=ring("I"))
        parts = [some[i : i + max(1, len(some) // 16)] for i in range(0, len(some), max(1, len(some) // 16))][:16]
        for what, value in (
            ("accuracy lost", lambda r: r.read.direct),
            ("bernoulli", lambda r: r.shift["bernoulli"]),
        ):
            xs = [mean_of(part, ring("I")).estimate for part in parts]
            curves[f"{what} by R, {name}"] = Curve(xs, [mean_of(part, value).estimate for part in parts])
    return curves
