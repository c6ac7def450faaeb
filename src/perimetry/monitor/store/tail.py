"""What listens to events as they are committed: each listener has a small buffer and is told what it has missed."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, final

from perimetry.monitor.store.events import Stored

__all__ = ["BUFFER", "Gap", "Subscription", "Tail"]

BUFFER: Final = 256
"""Events that wait for a listener at most."""


class Gap(NamedTuple):
    """Here events were left out, because the listener was too slow."""

    missed: int
    """How many."""


@final
class Subscription:
    """The events of one listener, in order. One coroutine reads it, on the loop on which it was made."""

    def __init__(self) -> None:
        """Made by `Tail.subscribe`."""
        self._items: deque[Stored | Gap] = deque()
        self._events = 0
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()

    def offer(self, events: Sequence[Stored]) -> None:
        """Put events into the buffer; called from the thread that writes. Never waits."""
        with self._lock:
            idle = not self._items
            for one in events:
                if self._events < BUFFER:
                    self._items.append(one)
                    self._events += 1
                elif isinstance(last := self._items[-1], Gap):
                    self._items[-1] = Gap(last.missed + 1)
                else:
                    self._items.append(Gap(1))
        if idle and events:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._ready.set)

    def take(self) -> Stored | Gap | None:
        """The next one, or None where there is none yet."""
        with self._lock:
            found = self._items.popleft() if self._items else None
            self._events -= isinstance(found, Stored)
            return found

    async def get(self) -> Stored | Gap:
        """The next one; waits for it."""
        while True:
            self._ready.clear()
            found = self.take()
            if found is not None:
                return found
            await self._ready.wait()


@final
class Tail:
    """All listeners."""

    def __init__(self) -> None:
        """Nobody listens yet."""
        self._listeners: tuple[Subscription, ...] = ()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._listeners)

    def publish(self, events: Sequence[Stored]) -> None:
        """Give committed events to everyone who listens."""
        for listener in self._listeners:
            listener.offer(events)

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Listen for as long as the block lasts; begun inside a running event loop."""
        mine = Subscription()
        with self._lock:
            self._listeners = (*self._listeners, mine)
        try:
            yield mine
        finally:
            with self._lock:
                self._listeners = tuple(one for one in self._listeners if one is not mine)
