"""A clock that a test turns by hand, and a worker that only remembers."""

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from perimetry.monitor.encoding import Encoded
from perimetry.monitor.engine import Row
from perimetry.monitor.rows import Room, Ticket

__all__ = ["FakeTimers", "FakeWire", "ticket_of"]


class Handle:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeTimers:
    """As much of an event loop as the dispatcher needs."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = itertools.count()
        self._heap: list[tuple[float, int, Handle]] = []

    def time(self) -> float:
        # A real clock moves on between two looks at it.
        self.now += 1e-9
        return self.now

    def call_at(self, when: float, callback: Callable[[], object], /) -> Any:
        handle = Handle(callback)
        heapq.heappush(self._heap, (when, next(self._numbers), handle))
        return handle

    def turn(self, to: float) -> None:
        """Everything that was due until then, a microsecond more or less, in order."""
        while self._heap and self._heap[0][0] <= to + 1e-6:
            when, _, handle = heapq.heappop(self._heap)
            self.now = max(self.now, when)
            if handle.callback is not None:
                handle.callback()
        self.now = max(self.now, to)


class FakeWire:
    """What a worker was told."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, list[Ticket]]] = []
        self.aborted: list[int] = []
        self.killed: list[str] = []

    def send(self, number: int, tickets: Sequence[Ticket]) -> None:
        self.sent.append((number, list(tickets)))

    def abort(self, number: int) -> None:
        self.aborted.append(number)

    def kill(self, why: str) -> None:
        self.killed.append(why)


def ticket_of(tokens: int, deadline: float, room: Room) -> Ticket:
    """A row of so many tokens that was let in."""
    room.enter(1)
    room.fill(tokens)
    ticket = Ticket(Row((("", "x"),)), deadline, room)
    ticket.tokenised(Encoded("x", [0] * tokens, [True] * tokens, [None] * tokens, 1))
    return ticket
