"""Rings, facts and edits that come with the check: months, weekdays and capitals."""

from collections.abc import Iterator
from typing import Final

from perimetry.editing.probes import Fact, Ring, rotated
from perimetry.editing.requests import EditRequest
from perimetry.errors import UsageError

__all__ = ["CAPITALS", "MONTHS", "RINGS", "WEEKDAYS", "known_edits", "sibling_facts"]

MONTHS: Final = Ring(
    name="months",
    words=(
        *("January", "February", "March", "April", "May", "June", "July", "August", "September", "October"),
        *("November", "December"),
    ),
    sentences=("It was in {}", "They met in {}", "The event took place in {}"),
)
WEEKDAYS: Final = Ring(
    name="weekdays",
    words=("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    sentences=("It was on {}", "They met on {}", "The event took place on {}"),
)
RINGS: Final = (MONTHS, WEEKDAYS)
"""Rings that the check reads unless others are given."""

CAPITALS: Final = {
    **{"France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo"},
    **{"Russia": "Moscow", "Greece": "Athens", "Austria": "Vienna", "Portugal": "Lisbon", "Sweden": "Stockholm"},
    **{"China": "Beijing", "England": "London", "Ireland": "Dublin"},
}
"""Country -> capital. One more than is asked about, since the edited one is left out."""
SIBLINGS: Final = 12


def _capital(country: str, steps: int) -> EditRequest:
    target = CAPITALS[rotated(list(CAPITALS), country, steps)]
    return EditRequest(prompt="The capital of {} is", subject=country, target=target, family="capitals")


def _of_ring(ring: Ring, word: str, steps: int) -> EditRequest:
    what = {"months": "month", "weekdays": "day"}[ring.name]
    target = rotated(ring.words, word, steps)
    return EditRequest(prompt=f"The {what} after {{}} is", subject=word, target=target, family=ring.name)


def _pairs(words: tuple[str, ...], steps: tuple[int, ...]) -> Iterator[tuple[str, int]]:
    """Words spread over the ring, so that a few edits are not neighbours."""
    stride = next(s for s in range(max(2, len(words) // 3), len(words) + 2) if _covers(s, len(words)))
    for way in steps:
        for i in range(len(words)):
            yield words[(2 + i * stride) % len(words)], way


def _covers(stride: int, n: int) -> bool:
    return len({i * stride % n for i in range(n)}) == n


def known_edits(count: int) -> list[EditRequest]:
    """The first so many edits, turn by turn of a month, a capital and a weekday; every answer is a wrong one.

    Errors: `UsageError` for more than there are.
    """
    turns = [
        [_of_ring(MONTHS, word, steps) for word, steps in _pairs(MONTHS.words, (7, 4, 10))],
        [_capital(word, steps) for word, steps in _pairs(tuple(CAPITALS), (2, 5))],
        [_of_ring(WEEKDAYS, word, steps) for word, steps in _pairs(WEEKDAYS.words, (4, 3))],
    ]
    every = [turn[i] for i in range(max(map(len, turns))) for turn in turns if i < len(turn)]
    if not 0 < count <= len(every):
        raise UsageError(f"{count} edits were asked for and there are {len(every)}; give from 1 to {len(every)}")
    return every[:count]


def sibling_facts(subject: str) -> list[Fact]:
    """Twelve capitals, that of an edited country not among them."""
    left = [country for country in CAPITALS if country != subject][:SIBLINGS]
    return [Fact(prompt=f"The capital of {c} is", answer=CAPITALS[c], subject=c) for c in left]
