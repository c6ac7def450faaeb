"""When batches go to the worker, and what becomes of their rows: one batch runs, one is staged behind it."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol, final, runtime_checkable

from perimetry.monitor.batcher import Batcher
from perimetry.monitor.config import MonitorConfig
from perimetry.monitor.pace import Pace
from perimetry.monitor.problems import Problem
from perimetry.monitor.rows import Ticket

__all__ = ["Batch", "BatchDone", "Dispatcher", "Timers", "Wire"]

_FLYING: Final = 2
"""Batches that the worker holds: the one that runs, and the next."""


@runtime_checkable
class Timers(Protocol):
    """What is needed of an event loop."""

    def time(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def call_at(self, when: float, callback: Callable[[], object], /) -> Any:
        """Call later; what comes back can `cancel()`."""
        ...


@runtime_checkable
class Wire(Protocol):
    """The way to a worker."""

    def send(self, number: int, tickets: Sequence[Ticket]) -> None:
        """Hand a batch over."""
        ...

    def abort(self, number: int) -> None:
        """Nobody waits for that batch any more."""
        ...

    def kill(self, why: str) -> None:
        """End the worker at once; the reason is for the record."""
        ...


class BatchDone(NamedTuple):
    """What there is to count of a batch that came back."""

    rows: int
    """Rows of it."""
    tokens: int
    """Their tokens."""
    padded: int
    """Tokens that the model went through."""
    seconds: float
    """In the worker."""
    waits: tuple[float, ...]
    """Seconds that each row was in the queue and staged."""


class Batch:
    """A batch that the worker has."""

    def __init__(self, number: int, tickets: list[Ticket], padded: int) -> None:
        self.number = number
        self.tickets = tickets
        self.padded = padded
        self.began: float | None = None
        """When it began to run, or None while it is staged."""
        self.aborted = False
        """Whether the worker was told to give it up."""


@final
class Dispatcher:
    """Queue, batches in flight, watchdog. Everything runs in one event loop; nothing here waits."""

    def __init__(
        self,
        config: MonitorConfig,
        timers: Timers,
        observe: Callable[[BatchDone], object] | None = None,
        *,
        company: Callable[[], bool] = lambda: True,
    ) -> None:
        """`observe` is told of batches that came back. `company`: whether rows are on their way here; where none is, a free worker is not kept waiting."""
        self.config = config
        self.batcher = Batcher(config.batch)
        self.pace = Pace()
        self.flying: list[Batch] = []
        """What the worker has: the first one runs."""
        self._timers = timers
        self._observe = observe
        self._company = company
        self._wire: Wire | None = None
        self._number = 0
        self._timer: Any = None
        self._watchdog: Any = None

    def up(self, wire: Wire) -> None:
        """A worker is ready for batches."""
        self._wire = wire
        self.pump()

    def down(self, kind: str, detail: str, retry_after_s: int) -> None:
        """There is no worker any more: whatever waits or runs is refused, with a `Problem` of this kind."""
        self._wire = None
        self._stop_timers()
        lost, self.flying = [t for batch in self.flying for t in batch.tickets], []
        for ticket in [*lost, *self.batcher.tickets]:
            ticket.settle("failed", problem=Problem(kind, detail, retry_after_s=retry_after_s))

    def add(self, ticket: Ticket) -> None:
        """A row is ready to be scored."""
        ticket.listeners.append(self._settled)
        self.batcher.add(ticket, self._timers.time())

    def seconds_ahead(self, lengths: Sequence[int]) -> float:
        """Expected seconds until rows of these lengths would be done if they came now; 0 where nothing is known."""
        now, ahead = self._timers.time(), 0.0
        for batch in self.flying:
            spent = 0.0 if batch.began is None else now - batch.began
            ahead += max(0.0, (self.pace.batch(batch.padded) or 0.0) - spent)
        config, rows, tokens = self.config.batch, len(self.batcher) + len(lengths), self.batcher.tokens + sum(lengths)
        batches = max(-(-rows // config.rows), -(-tokens // config.tokens))
        return ahead + self.pace.work(batches, tokens)

    def pump(self) -> None:
        """Hand over what may go now, and see to it that this is asked again when more may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._wire is not None and self.batcher and len(self.flying) < _FLYING:
            now = self._timers.time()
            when = self._next_at(now)
            if when > now:
                self._timer = self._timers.call_at(when, self.pump)
                return
            self._launch(self.batcher.take())

    def _next_at(self, now: float) -> float:
        """When the next batch may go: when it is full, when the oldest row has waited or would wait for nobody, when the one before nears its end."""
        if self.batcher.full or not (self.flying or self._company()):
            return now
        wait = self.config.batch.wait_ms / 1e3
        due = self.batcher.oldest + wait
        if self.flying:
            running = self.flying[0]
            expected = self.pace.batch(running.padded)
            if running.began is not None and expected is not None:
                due = max(due, running.began + expected - wait)
        return due

    def _launch(self, tickets: list[Ticket]) -> None:
        assert self._wire is not None
        self._number += 1
        batch = Batch(self._number, tickets, self.batcher.cost([t.tokens for t in tickets]))
        for ticket in tickets:
            ticket.stage, ticket.batch = "running", batch.number
        self.flying.append(batch)
        self._wire.send(batch.number, tickets)
        if len(self.flying) == 1:
            self._begin(batch)

    def _begin(self, batch: Batch) -> None:
        batch.began = self._timers.time()
        self._watchdog = self._timers.call_at(batch.began + self.config.time.batch_hard_ms / 1e3, self._hung)

    def _hung(self) -> None:
        """The batch runs for too long: its rows have waited in vain, and the worker is not to be reasoned with."""
        assert self._wire is not None
        for ticket in self.flying[0].tickets:
            ticket.settle("expired", problem=Problem("deadline", "The batch took longer than any batch may."))
        self._wire.kill("hung")

    def done(self, number: int, seconds: float) -> list[Ticket]:
        """A batch has come back: its rows in order, the settled ones too. Empty where it is not the one that runs.

        Settle the rows, then call `pump`.
        """
        if not self.flying or self.flying[0].number != number:
            return []
        batch = self.flying.pop(0)
        self._watchdog.cancel()
        if self.flying:
            self._begin(self.flying[0])
        if not batch.aborted:
            self.pace.observe(batch.padded, seconds)
        if self._observe is not None and batch.began is not None:
            began, lengths = batch.began, [t.tokens for t in batch.tickets]
            waits = tuple(began - t.queued_at for t in batch.tickets)
            self._observe(BatchDone(len(lengths), sum(lengths), batch.padded, seconds, waits))
        return batch.tickets

    def _settled(self, ticket: Ticket) -> None:
        """A row has ended, from within or from without."""
        self.batcher.remove(ticket)
        for batch in self.flying:
            dead = batch.number == ticket.batch and all(t.settled for t in batch.tickets)
            if dead and not batch.aborted and self._wire is not None:
                batch.aborted = True
                self._wire.abort(batch.number)

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._watchdog):
            if timer is not None:
                timer.cancel()
        self._timer = self._watchdog = None
