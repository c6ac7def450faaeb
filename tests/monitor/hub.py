"""Listeners to a stream of events, each with a bounded buffer: a slow one loses events and is told how many."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import final

from perimetry.monitor.http.sinks import Gap, Stored
from perimetry.monitor.problems import Problem

__all__ = ["Hub"]


class _Place:
    """One listener: what it has not read yet, and how much was lost since."""

    def __init__(self) -> None:
        self.waiting: deque[Stored] = deque()
        self.missed = 0
        self.news = asyncio.Event()


@final
class Hub:
    """Hands every event to every listener. Owned by one event loop; from another thread publish by `call_soon_threadsafe`."""

    def __init__(self, most: int = 16, buffer: int = 256) -> None:
        """`most`: listeners at once. `buffer`: events that one may lag behind."""
        self._most, self._buffer = most, buffer
        self._places: set[_Place] = set()
        self._closed = False

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._places)

    def publish(self, event: Stored) -> None:
        """Hand an event to all listeners; never waits."""
        for place in self._places:
            if len(place.waiting) >= self._buffer:
                place.waiting.popleft()
                place.missed += 1
            place.waiting.append(event)
            place.news.set()

    def close(self) -> None:
        """End every listener, now and later."""
        self._closed = True
        for place in self._places:
            place.news.set()

    def listen(self, first: Sequence[Stored] = ()) -> AsyncIterator[Stored | Gap]:
        """Events from this call on, after those of `first`; each id once. `aclose` gives the place back.

        Errors: `Problem` of `subscribers`.
        """
        if len(self._places) >= self._most:
            raise Problem("subscribers", retry_after_s=5)
        place = _Place()
        self._places.add(place)
        return _Listener(self, place, deque(first))

    def _leave(self, place: _Place) -> None:
        self._places.discard(place)

    async def _next(self, place: _Place) -> Stored | Gap | None:
        while True:
            if place.missed:
                gap, place.missed = Gap(place.missed), 0
                return gap
            if place.waiting:
                return place.waiting.popleft()
            if self._closed:
                return None
            place.news.clear()
            await place.news.wait()


class _Listener(AsyncIterator["Stored | Gap"]):
    """An iterator whose place is taken when it is made, not when it is first asked."""

    def __init__(self, hub: Hub, place: _Place, first: deque[Stored]) -> None:
        self._hub, self._place, self._first, self._last = hub, place, first, 0

    async def __anext__(self) -> Stored | Gap:
        while True:
            found = self._first.popleft() if self._first else await self._hub._next(self._place)
            if found is None:
                await self.aclose()
                raise StopAsyncIteration
            if isinstance(found, Gap):
                return found
            if found["id"] > self._last:
                self._last = found["id"]
                return found

    async def aclose(self) -> None:
        """Give the place back."""
        self._hub._leave(self._place)
