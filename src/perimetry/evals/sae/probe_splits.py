"""Which rows of a labelled set train a probe, and which judge it."""

from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from perimetry.errors import TooFewSamples
from perimetry.measures.logistic import validation_rows
from perimetry.runtime import generator

__all__ = ["Chosen", "ProbeSet", "Split", "reserve", "split", "too_few"]

TEST_ROWS: Final = 100
TRAIN_ROWS: Final = 1024

Chosen = Int[Tensor, " _"]
"""Rows of a set."""


class ProbeSet(NamedTuple):
    """Labelled prompts."""

    name: str
    """What it is called in results."""
    texts: tuple[str, ...]
    """The prompts, in the order of the source."""
    labels: Bool[Tensor, " row"]
    """True for the class whose name comes later in the alphabet."""
    classes: tuple[str, str]
    """Names of the two classes, in the order of the alphabet."""


class Split(NamedTuple):
    """Rows of a set that train a probe, and rows that judge it."""

    train: Chosen
    """Balanced, in random order: the last of them validate (`validation_rows`)."""
    test: Chosen
    """Rows that do not train, in the order of the source."""


def too_few(found: ProbeSet, positives: int, rows: int, wanted: str) -> TooFewSamples:
    """The error that says which rows a set lacks."""
    return TooFewSamples(
        f"the set {found.name!r} offers {positives} rows of {found.classes[1]!r} among {rows}; wanted {wanted}; raise "
        "`rows` or leave the set out"
    )


def _draw(rows: Chosen, count: int, draw: torch.Generator) -> Chosen:
    return rows[torch.randperm(rows.numel(), generator=draw)[:count]]


def reserve(found: ProbeSet, count: int) -> Chosen:
    """Rows that never train, half of each class: the same whatever the seed of a probe. Errors: `TooFewSamples`."""
    draw, sides = generator(count), [found.labels.nonzero()[:, 0], (~found.labels).nonzero()[:, 0]]
    if min(side.numel() for side in sides) < count:
        raise too_few(
            found, sides[0].numel(), found.labels.numel(), f"{count} of each class, to set half of them aside"
        )
    return torch.cat([_draw(side, count // 2, draw) for side in sides]).sort().values


def split(found: ProbeSet, seed: int, *, leaks: bool = False, reserved: Chosen | None = None) -> Split:
    """Training rows, drawn by `seed`, and test rows, which are those that are `reserved` where some are.

    Training has min(rows - 100, 1024) rows, a half below 200 rows, and never all of a class. Unless `leaks`, no
    prompt is on both sides: of repeated prompts the test rows go, or, with `reserved` ones, the training rows. Where that
    leaves a class without test rows, some prompts of each class are set aside before training rows are drawn. Nor is a prompt
    among the last training rows, which validate, and among the others, as far as repeated prompts can be shared out so. Errors:
    `TooFewSamples` where a side lacks a class.
    """
    made = _split(found, seed, leaks, reserved, set())
    if _lacks(found, made.test) and not leaks and reserved is None:
        made = _split(found, seed, leaks, reserved, _aside(found, generator(seed)))
    for side, what in ((made.train, "both classes to train on"), (made.test, "both classes to test on")):
        if _lacks(found, side):
            raise too_few(found, int(found.labels[side].sum()), side.numel(), what)
    return made


def _lacks(found: ProbeSet, rows: Chosen) -> bool:
    return not 0 < int(found.labels[rows].sum()) < rows.numel()


def _aside(found: ProbeSet, draw: torch.Generator) -> set[str]:
    """Prompts that do not train: a fifth of the distinct ones of each class, at most `TEST_ROWS / 2`.

    Where prompts are repeated often, a draw of rows takes some of nearly all of them and leaves none to be judged.
    """
    aside: set[str] = set()
    for side in (True, False):
        mine = [text for text, label in zip(found.texts, found.labels.tolist(), strict=True) if label is side]
        texts = list(dict.fromkeys(mine))
        # One prompt alone must train.
        count = min(len(texts) // 5, TEST_ROWS // 2) or int(len(texts) > 1)
        aside |= {texts[i] for i in torch.randperm(len(texts), generator=draw)[:count].tolist()}
    return aside


def _split(found: ProbeSet, seed: int, leaks: bool, reserved: Chosen | None, aside: set[str]) -> Split:
    n, draw = found.labels.numel(), generator(seed)
    kept = aside if reserved is None else {found.texts[i] for i in reserved.tolist()}
    free = torch.tensor([leaks or text not in kept for text in found.texts])
    if reserved is not None:
        free[reserved] = False
    size = min(max(n - TEST_ROWS, n // 2), TRAIN_ROWS)
    positive, negative = (free & found.labels).nonzero()[:, 0], (free & ~found.labels).nonzero()[:, 0]
    most = min(positive.numel(), negative.numel())
    # Where nothing is set aside, some of the rarer class must remain to be judged.
    size = max(0, min(size, 2 * (most if kept else most - max(1, most // 20))))
    train = torch.cat([_draw(positive, size - size // 2, draw), _draw(negative, size // 2, draw)])
    train = _draw(train, size, draw)
    if not leaks:
        train = _validated_last(found, train)
    return Split(train, reserved if reserved is not None else _rest(found, train, leaks))


def _validated_last(found: ProbeSet, train: Chosen) -> Chosen:
    """The rows with those last that validate: half of each class, in whole prompts as long as these fit, else in part of one."""
    rows = train.tolist()
    count = validation_rows(len(rows))
    room = {True: count // 2, False: count - count // 2}
    labels = dict(zip(rows, found.labels[train].tolist(), strict=True))
    by_text: dict[str, list[int]] = {}
    for row in rows:
        by_text.setdefault(found.texts[row], []).append(row)
    chosen: set[int] = set()
    for some in reversed(by_text.values()):
        wants = {side: sum(labels[row] is side for row in some) for side in room}
        if all(wants[side] <= room[side] for side in room):
            chosen.update(some)
            room = {side: room[side] - wants[side] for side in room}
    for side in room:
        left = [mine for some in reversed(by_text.values()) if (mine := [r for r in some if labels[r] is side])]
        left = [mine for mine in left if mine[0] not in chosen]
        # A prompt of this class alone that did not fit has rows enough by itself: no second one need be cut.
        left.sort(key=lambda mine: len(mine) < room[side])
        chosen.update([row for mine in left for row in reversed(mine)][: room[side]])
    return torch.tensor([r for r in rows if r not in chosen] + [r for r in rows if r in chosen], dtype=torch.long)


def _rest(found: ProbeSet, train: Chosen, leaks: bool) -> Chosen:
    rest = torch.ones(found.labels.numel(), dtype=torch.bool)
    rest[train] = False
    if not leaks:
        seen = {found.texts[i] for i in train.tolist()}
        rest &= torch.tensor([text not in seen for text in found.texts])
    return rest.nonzero()[:, 0]
