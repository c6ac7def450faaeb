"""The arm of one seed: train a model, edit it in every way, read each edited copy, and let the meter look at all of them."""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from jaxtyping import Float
from torch import Tensor

from perimetry.editing.health import FLAGS, flag_of
from perimetry.editing.rings import Shattering
from perimetry.editing.updates import drawn_like
from perimetry.labs.base import Measured, Outcome
from perimetry.labs.knowledge_editing.attachment import Attached, MeterSizes
from perimetry.labs.knowledge_editing.calibration import calibrated
from perimetry.labs.knowledge_editing.editors import (
    EDITORS,
    Moments,
    Request,
    Site,
    corrections,
    moments_of,
    requests,
)
from perimetry.labs.knowledge_editing.measures import Reader, ReaderSizes
from perimetry.labs.knowledge_editing.models import BaseConfig, edited, louder, projection, train_base
from perimetry.labs.knowledge_editing.summary import Both, Row, areas, curves_of, numbers_of
from perimetry.labs.knowledge_editing.world import World
from perimetry.labs.nano import Nano
from perimetry.runtime import generator

__all__ = ["EditingSizes", "run_editing"]

EDITED: Final = 0
"""The order whose facts are edited."""
SCALES: Final = (0.5, 2.0, 4.0)
"""How many times a ROME update is added, beside once."""
LARGE: Final = (4.0, 16.0)
"""Norms of drawn updates in those of the ROME update, beside once."""
LOUD: Final = 2.0
"""How many times as large a control writes."""
LABELLED: Final = {"ROME", "ROME, C of few keys", "ROME, first block", "drawn"}
"""Whose prompts the meter tells apart by how far they are from the edited fact."""


class EditingSizes(NamedTuple):
    """Sizes of the arm."""

    steps: int | None
    """Training steps; None: those of the arm."""
    each: int
    """Facts for each distance between old and new answer."""
    first: int
    """The same, edited in the first block, where every reading takes longer."""
    corrections: int
    """Most wrong answers that are put right."""
    keys: int
    """Sequences that the covariance of keys is made of."""
    reader: ReaderSizes
    """Readings."""
    meter: MeterSizes
    """The meter."""


class _Variant(NamedTuple):
    name: str
    scale: float
    update: Float[Tensor, "value key"]
    drawn: bool


def run_editing(arm: BaseConfig, seed: int, sizes: EditingSizes) -> Outcome:
    """Everything of one seed: all editors share its model."""
    world = World(arm.entities, seed)
    model = train_base(arm, world, seed, sizes.steps)
    draw = generator(104_395_301 + seed)
    asked = requests(world, EDITED, sizes.each, draw)
    wrong = corrections(world, model, EDITED, sizes.corrections, draw)
    meters = {block: Attached(model, world, block, sizes.meter, seed) for block in (0, 1)}
    readers = {block: Reader(model, world, block, sizes.reader, seed) for block in (0, 1)}
    rows: list[Row] = []
    measured = [*_before(readers[1], seed), *(m for at in meters.values() for m in (*at.facts, *at.on_inputs()))]
    everyone = dict(enumerate([*asked, *wrong]))
    for block, chosen in ((1, everyone), (0, _some(everyone, sizes.first))):
        moments = moments_of(model, world, block, sizes.keys, draw)
        found, scored = _edited(model, readers[block], meters[1], moments, chosen, seed)
        rows += found
        measured += areas(scored)
    measured += [*numbers_of(rows), *calibrated(rows, seed), *_nothing(model, readers[1], asked[0])]
    measured += _loud(readers[1], sizes.reader, seed)
    return Outcome(measured, curves_of(rows))


def _some(asked: Mapping[int, Request], first: int) -> dict[int, Request]:
    """So many of each distance, by their numbers."""
    taken: dict[int, list[int]] = {}
    for number, request in asked.items():
        taken.setdefault(request.distance, []).append(number)
    return {n: asked[n] for distance, own in taken.items() if distance for n in own[:first]}


def _before(reader: Reader, seed: int) -> list[Measured]:
    """The model before any edit, and what rings show where names were exchanged."""
    accuracies = reader.accuracies()
    found = [Measured("accuracy", value, f"{name}, {kind}") for (name, kind), value in accuracies.items()]
    for kind in dict.fromkeys(kind for _, kind in accuracies):
        least = min(value for (_, own), value in accuracies.items() if own == kind)
        found.append(Measured("least accuracy of the orders", least, kind))
    return [
        *found,
        *(Measured("order of distances", value, name) for name, value in reader.orders().items()),
        *_shown(reader.relabelled(seed), "names exchanged"),
        Measured("loss of text", reader.nll),
    ]


def _shown(found: Shattering, case: str) -> list[Measured]:
    return [
        Measured("R", found.r, case),
        Measured("scale-free R", found.r_scaled, case),
        Measured("size of distances", found.scale, case),
        *(Measured(f"flag: {flag}", float(flag_of(found) == flag), case) for flag in FLAGS),
    ]


def _loud(reader: Reader, sizes: ReaderSizes, seed: int) -> list[Measured]:
    """All that the model writes to its stream, twice as large (control): a blow-up of norms by which nothing is lost."""
    loud = Reader(louder(reader.model, LOUD), reader.world, reader.block, sizes, seed)
    after = loud.accuracies()
    lost = [value - after[name] for name, value in reader.accuracies().items()]
    return [*_shown(reader.beside(loud), "twice as loud"), Measured("most accuracy lost", max(lost), "twice as loud")]


def _nothing(model: Nano, reader: Reader, request: Request) -> list[Measured]:
    """The same edit, no times (control)."""
    update = 0 * projection(model, reader.block).weight.double()
    read = reader.read(edited(model, {reader.block: update}), request, EDITED)
    most = max(abs(v) for v in (*(ring.r for ring in read.rings.values()), *read.lost.values(), read.nll))
    return [Measured("R", read.rings["I"].r, "no update"), Measured("largest change of all", most, "no update")]


def _variants(site: Site, moments: Moments, seed: int) -> Iterator[_Variant]:
    """Every update of a request at a block, each with a drawn one of its norm."""
    for number, (name, editor) in enumerate(EDITORS.items()):
        if editor.block != site.block:
            continue
        update = site.update(editor, moments)
        yield _Variant(name, 1.0, update, drawn=False)
        yield _Variant(name, 1.0, drawn_like(update, seed + number), drawn=True)
        if name == "ROME":
            yield from (_Variant(name, scale, scale * update, drawn=False) for scale in SCALES)
            yield from (_Variant(name, s, s * drawn_like(update, seed + len(EDITORS)), drawn=True) for s in LARGE)


def _edited(
    model: Nano, reader: Reader, meter: Attached, moments: Moments, asked: Mapping[int, Request], seed: int
) -> tuple[list[Row], dict[str, list[Both]]]:
    """Readings of every edit, and scores of prompts by label before and after some of them."""
    rows: list[Row] = []
    scored: dict[str, list[Both]] = {}
    whole = float(projection(model, reader.block).weight.double().norm())
    usual = meter.means(reader.texts.states()[:, 1:].flatten(0, 1))
    for number, request in asked.items():
        draw = generator(1_000_003 * (seed + 1) + 31 * number + reader.block)
        site = Site(model, reader.world, reader.block, request, draw)
        copies: dict[str, Nano] = {}
        for one in _variants(site, moments, 16 * (1000 * seed + number)):
            made = edited(model, {reader.block: one.update})
            read = reader.read(made, request, EDITED)
            now = meter.means(reader.texts.states(made)[:, 1:].flatten(0, 1))
            shift = {name: now[name] - usual[name] for name in usual}
            size = float(one.update.norm()) / whole
            rows.append(Row(number, request.distance, one.name, one.scale, one.drawn, size, read, shift))
            named = "drawn" if one.drawn else one.name
            if request.distance and named in LABELLED and (not one.drawn or one.scale in LARGE):
                copies[f"{named}, {_dial(one, request)}"] = made
        if copies:
            labelled = meter.labelled(request, EDITED, draw)
            before, *after = labelled.scores(meter, reader.block, [None, *copies.values()])
            for name, own in zip(copies, after, strict=True):
                scored.setdefault(name, []).append((before, own))
    return rows, scored


def _dial(one: _Variant, request: Request) -> str:
    """Which dial a copy belongs to."""
    return f"d {request.distance}" if one.scale == 1 and not one.drawn else f"{one.scale:g} times"
