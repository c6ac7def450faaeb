"""The queue before the thread that writes: bounded, never waited for, with a count of what was lost and why."""

import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple, final

from sqlalchemy import Connection

from perimetry.monitor.store.events import Event, fault_of
from perimetry.monitor.store.keeper import DropReason
from perimetry.monitor.store.store_config import Ack, StoreConfig

__all__ = ["Change", "Intake", "Receipt", "Waiting", "settle"]


class Receipt(NamedTuple):
    """What is known of an event when it is handed in."""

    ack: Ack
    """`queued` or `dropped`."""
    done: "Future[Ack] | None"
    """What becomes of it, where that was asked for and it was not dropped at once."""


class Waiting(NamedTuple):
    """An event in the queue."""

    event: Event
    """The event."""
    weight: int
    """Bytes of its text."""
    done: "Future[Ack] | None"
    """Who waits for it."""


class Change(NamedTuple):
    """Something else that is to be written."""

    what: Callable[[Connection], None]
    """Writes it, in a transaction of its own."""
    done: "Future[Ack]"
    """Who waits for it."""


def settle(done: "Future[Ack] | None", ack: Ack) -> None:
    """Tell who waits."""
    if done is not None:
        done.set_result(ack)


def _clipped(text: str, most: int) -> str:
    """The beginning of a text, up to the last space, so that nothing is cut that redaction would have known.

    >>> _clipped("call 030 901820 now", 12)
    'call 030'
    """
    if len(text) <= most:
        return text
    end = max(text.rfind(" ", 0, most), text.rfind("\n", 0, most))
    return text[: end if end > 0 else most]


def _running() -> "Future[Ack]":
    """A future that nobody can cancel: who does not want to wait any longer goes away, and the result stays true."""
    done: Future[Ack] = Future()
    done.set_running_or_notify_cancel()
    return done


@final
class Intake:
    """Filled from any thread, emptied by one."""

    def __init__(self, config: StoreConfig) -> None:
        """Empty and open."""
        self._config = config
        self._wake = threading.Condition()
        self._queue: deque[Waiting] = deque()
        self._changes: deque[Change] = deque()
        self._weight = 0
        self._poked = False
        self._fresh: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self.refusing: DropReason | None = None
        """Why nothing is taken at the moment; set by the thread that writes."""
        self.closed = False
        """Whether `close` was called."""

    def __len__(self) -> int:
        return len(self._queue)

    def submit(self, event: Event, *, wait: bool = False) -> Receipt:
        """Hand an event in; never waits. With `wait` the receipt says later what has become of it."""
        text = (
            None if self._config.text == "off" or event.text is None else _clipped(event.text, self._config.text_chars)
        )
        weight = 0 if text is None else sys.getsizeof(text)
        invalid = fault_of(event) is not None
        with self._wake:
            reason = "invalid" if invalid else self._why_not(weight)
            if reason is not None:
                self._count(reason, 1)
                return Receipt("dropped", None)
            done = _running() if wait else None
            self._queue.append(Waiting(event._replace(text=text), weight, done))
            self._weight += weight
            if len(self._queue) in (1, self._config.commit_rows):
                self._wake.notify()
        return Receipt("queued", done)

    def _why_not(self, weight: int) -> DropReason | None:
        if self.closed:
            return "closed"
        full = len(self._queue) >= self._config.queue_rows or self._weight + weight > self._config.queue_bytes
        return self.refusing or ("queue-full" if full else None)

    def change(self, what: Callable[[Connection], None]) -> "Future[Ack]":
        """Hand in something that is no event; `committed` or `dropped` becomes of it."""
        done = _running()
        with self._wake:
            if self.closed:
                done.set_result("dropped")
            else:
                self._changes.append(Change(what, done))
                self._wake.notify()
        return done

    def poke(self) -> None:
        """Let the thread that waits in `take` look after its duties."""
        with self._wake:
            self._poked = True
            self._wake.notify()

    def close(self) -> None:
        """Take nothing more; what waits is still given out."""
        with self._wake:
            self.closed = True
            self._wake.notify()

    def take(self, timeout_s: float) -> tuple[list[Waiting], list[Change]]:
        """What is to be written next: a batch that is full or has waited long enough. Both are empty after `timeout_s`."""
        rows = self._config.commit_rows
        with self._wake:
            self._wake.wait_for(lambda: self._queue or self._changes or self.closed or self._poked, timeout_s)
            if self._queue:
                self._wake.wait_for(lambda: len(self._queue) >= rows or self.closed, self._config.commit_ms / 1e3)
            self._poked = False
            batch = [self._queue.popleft() for _ in range(min(rows, len(self._queue)))]
            self._weight -= sum(one.weight for one in batch)
            changes = list(self._changes)
            self._changes.clear()
        return batch, changes

    def empty(self) -> bool:
        """Whether nothing waits."""
        with self._wake:
            return not self._queue and not self._changes

    def _count(self, reason: DropReason, number: int) -> None:
        self._dropped[reason] += number
        self._fresh[reason] += number

    def count(self, reason: DropReason, number: int) -> None:
        """Count events that were lost."""
        if number:
            with self._wake:
                self._count(reason, number)

    def lose(self, batch: list[Waiting], reason: DropReason) -> None:
        """Count these events as lost and tell who waits for them."""
        self.count(reason, len(batch))
        for one in batch:
            settle(one.done, "dropped")

    def fresh(self) -> Counter[str]:
        """Losses that are not written down yet, by reason."""
        with self._wake:
            return Counter(self._fresh)

    def persisted(self, drops: Counter[str]) -> None:
        """These losses are written down now."""
        with self._wake:
            self._fresh -= drops

    def dropped(self) -> dict[str, int]:
        """Events that were lost since the start, by reason."""
        with self._wake:
            return dict(self._dropped)
