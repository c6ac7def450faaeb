"""The engine of the service: lets rows in, has them scored by the worker, and answers by the deadline, come what may.

Neither torch nor the model is in this process. Texts are tokenised here, by two threads; the worker gets ids.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, final

from perimetry.monitor.baseline import Baseline
from perimetry.monitor.config import MonitorConfig
from perimetry.monitor.dispatch import BatchDone, Dispatcher
from perimetry.monitor.encoding import AbstractEncoder, Encoded
from perimetry.monitor.engine import GroupFacts, Row, Scored, Some
from perimetry.monitor.keeper import Keeper
from perimetry.monitor.problems import Problem
from perimetry.monitor.rows import Room, Ticket

__all__ = ["PARTS", "Gauges", "Supervisor"]

PARTS: Final = 16
"""Parts of a stream at most; smaller ones are put together."""
_THREADS: Final = 2


class Gauges(NamedTuple):
    """What there is to show of the engine at one moment."""

    rows: int
    """Rows that were let in and have no answer yet."""
    queue_rows: int
    """Those of them that wait for a batch."""
    queue_tokens: int
    """Tokens of the waiting ones."""
    tokens_per_second: float | None
    """Padded tokens that the worker takes a second of late; None before the first batch."""
    up: bool
    """Whether there is a worker that may be believed."""
    restarts: Mapping[str, int]
    """How often a worker died, by reason."""
    pid: int | None
    """Process id of the worker."""


@final
class Supervisor:
    """An `Engine` with a worker behind it. Make and use it in one event loop."""

    def __init__(
        self, meter: Path, config: MonitorConfig, *, observe: Callable[[BatchDone], object] | None = None
    ) -> None:
        """`observe` is told of every batch that comes back."""
        self._loop = loop = asyncio.get_running_loop()
        self.config = config
        self.room = Room(config.limits.queue_rows, config.limits.queue_tokens)
        self._dispatcher = Dispatcher(config, loop, observe, company=self._company)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="tokenise")
        self._keeper = Keeper(meter, config, self._dispatcher, self._pool)
        self._keeper.changed = self._changed
        self._life: asyncio.Task[None] | None = None
        self._decided = asyncio.Event()
        self._lost = asyncio.Event()
        self._empty = asyncio.Event()
        self._draining = False

    @property
    def artifact(self) -> Mapping[str, str]:
        """As `Engine.artifact`; empty before the first worker was ready."""
        return self._keeper.artifact

    @property
    def groups(self) -> Sequence[GroupFacts]:
        """As `Engine.groups`; empty before the first worker was ready."""
        return self._keeper.groups

    @property
    def limits(self) -> Mapping[str, int]:
        """As `Engine.limits`."""
        return self.config.limits.model_dump()

    @property
    def card(self) -> Mapping[str, Any]:
        """As `Engine.card`; empty before the first worker was ready."""
        return self._keeper.card

    @property
    def baseline(self) -> Baseline | None:
        """What the calibration prompts gave, for drift; None before the first worker was ready, and where there is none."""
        return self._keeper.baseline

    @property
    def gauges(self) -> Gauges:
        """The numbers of this moment."""
        queue, pace, keeper = self._dispatcher.batcher, self._dispatcher.pace.tokens_per_second, self._keeper
        up, restarts = keeper.state == "up", dict(keeper.restarts)
        return Gauges(self.room.rows, len(queue), queue.tokens, pace, up, restarts, keeper.pid)

    def checks(self) -> Mapping[str, str]:
        """As `Engine.checks`. A worker is up only with an artifact whose hashes, model and calibration fit and whose sentinel passed."""
        loaded = "ok" if self._keeper.artifact else "not loaded yet"
        return {
            "worker": "ok" if self._keeper.state == "up" else self._keeper.why or self._keeper.state,
            "artifact": loaded,
            "calibration": loaded,
            "sentinel": self._keeper.sentinel,
            "draining": "the service is stopping" if self._draining else "ok",
        }

    def _company(self) -> bool:
        return self.room.rows > len(self._dispatcher.batcher)  # some are let in and not queued yet

    def _changed(self) -> None:
        if self._keeper.state in ("up", "lost"):
            self._decided.set()
        if self._keeper.state == "lost":
            self._lost.set()

    def _ended(self, life: asyncio.Task[None]) -> None:
        """Nobody looks after the worker any more."""
        if not life.cancelled() and life.exception() is not None:
            self._keeper.give_up(f"A fault of the service: {type(life.exception()).__name__}.")
        self._decided.set()

    async def start(self) -> None:
        """As `Engine.start`. Errors: `Problem` of `internal` where the first worker cannot be started."""
        self._life = asyncio.create_task(self._keeper.live())
        self._life.add_done_callback(self._ended)
        await self._decided.wait()
        if self._keeper.state != "up":
            raise Problem("internal", self._keeper.why)

    async def lost(self) -> str:
        """As `Engine.lost`."""
        await self._lost.wait()
        return self._keeper.why

    async def stop(self) -> None:
        """As `Engine.stop`."""
        self._draining = True
        if self.room.rows:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), self.config.time.drain_s)
        await self._keeper.stop()
        self._dispatcher.down("draining", "", 1)
        if self._life is not None:
            self._life.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._life
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def score(self, rows: Sequence[Row], deadline: float) -> list[Scored]:
        """As `Engine.score`."""
        if not rows:
            return []
        tickets = self._admit(rows, deadline)
        try:
            self._fill(tickets, await self._encode(rows, deadline))
            return await self._readings(tickets, deadline)
        finally:
            self._give_back(tickets)

    def _admit(self, rows: Sequence[Row], deadline: float, *, begun: bool = False) -> list[Ticket]:
        """A ticket for each row. `begun`: they belong to something that was let in before. Errors: `Problem` of `draining`, `loading`, `restarting`, `queue-full`, `deadline`."""
        if self._draining and not begun:
            raise Problem("draining", retry_after_s=5)
        self._encoder()
        if deadline <= self._loop.time():
            self._too_late()
        self.room.enter(len(rows))
        tickets = [Ticket(row, deadline, self.room) for row in rows]
        for ticket in tickets:
            ticket.listeners.append(self._left)
        return tickets

    def _encoder(self) -> AbstractEncoder:
        """How texts are tokenised. Errors: `Problem` where nothing is scored now."""
        if self._keeper.state == "up" and self._keeper.encoder is not None:
            return self._keeper.encoder
        if self._keeper.state == "loading":
            raise Problem("loading", retry_after_s=5)
        raise Problem("restarting", retry_after_s=int(self._keeper.backoff_s) + 1)

    def _left(self, ticket: Ticket) -> None:  # noqa: ARG002
        if self.room.rows == 0:
            self._empty.set()

    def _too_late(self) -> NoReturn:
        raise Problem("deadline")

    async def _encode(self, rows: Sequence[Row], deadline: float) -> list[Encoded]:
        """Token ids of all rows, from a thread. Errors: `Problem`, of `deadline` as soon as it has passed."""
        work = self._loop.run_in_executor(self._pool, self._encoded, self._encoder(), tuple(rows))
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait([work], timeout=max(0.0, deadline - self._loop.time()))
        finally:
            # A thread that has begun goes on to its end, for nobody; nobody waits for it either.
            work.cancel()
        return self._too_late() if work.cancelled() else work.result()

    def _encoded(self, encoder: AbstractEncoder, rows: tuple[Row, ...]) -> list[Encoded]:
        limits, found = self.config.limits, list[Encoded]()
        left = limits.request_tokens
        for row in rows:
            found.append(encoder.encode(row, limits.prompt_tokens))
            left -= len(found[-1].ids)
            if left < 0:
                raise Problem("too-many-tokens", f"The texts have more than {limits.request_tokens} tokens together.")
        return found

    def _fill(self, tickets: Sequence[Ticket], encoded: Sequence[Encoded]) -> None:
        """Note the lengths of rows. Errors: `Problem` of `queue-full`, `deadline-unreachable`."""
        lengths = [len(one.ids) for one in encoded]
        ahead = self._dispatcher.seconds_ahead(lengths)
        if self._loop.time() + ahead > tickets[0].deadline:
            raise Problem("deadline-unreachable", retry_after_s=max(1, round(ahead)))
        self.room.fill(sum(lengths))
        for ticket, one in zip(tickets, encoded, strict=True):
            ticket.tokenised(one)

    async def _readings(self, tickets: Sequence[Ticket], deadline: float) -> list[Scored]:
        """Have rows scored. Errors: the `Problem` of the first row that has one."""
        self._encoder()
        done: asyncio.Future[None] = self._loop.create_future()

        def heard(ticket: Ticket) -> None:
            over = ticket.outcome != "ok" or all(other.settled for other in tickets)
            if over and not done.done():
                done.set_result(None)

        for ticket in tickets:
            ticket.listeners.append(heard)
            self._dispatcher.add(ticket)
        self._dispatcher.pump()
        await asyncio.wait([done], timeout=max(0.0, deadline - self._loop.time()))
        for ticket in tickets:
            if ticket.problem is not None:
                raise ticket.problem
        if not done.done():
            for ticket in tickets:
                ticket.settle("expired")
            self._too_late()
        return [ticket.result for ticket in tickets if ticket.result is not None]

    def _give_back(self, tickets: Sequence[Ticket]) -> None:
        """Whatever has not ended is of no use any more."""
        for ticket in tickets:
            ticket.settle("cancelled")
        self._dispatcher.pump()

    async def stream(self, row: Row, flush_tokens: int, deadline: float) -> AsyncIterator[Some | Scored]:
        """As `Engine.stream`. Each part is a reading of the whole text up to there, by the very path of `score`, and so is the last.

        Tokens are scored with what precedes them only, so that the parts agree with the whole. But nothing is kept from part to part:
        n tokens in parts of f cost about n / 2f times what `score` costs. There are at most `PARTS` parts, for which more
        tokens are put into each, so that a stream never costs more than 8.5 times as much. Every part is a point at which it can be given up.
        """
        detailed = row._replace(detail="tokens" if row.detail == "none" else row.detail)
        tickets = self._admit([detailed], deadline)
        try:
            whole = (await self._encode([row], deadline))[0]
            size = max(flush_tokens, -(-len(whole.ids) // PARTS))
            seq = begin = 0
            for end in range(size, len(whole.ids), size):
                some = await self._prefix(detailed, whole.prefix(end), deadline)
                if some is not None:
                    yield Some(seq, begin, end, some.tokens[begin:], some.score)
                    seq, begin = seq + 1, end
            # The place of the whole was kept all the time, so that a stop waits for it.
            self._fill(tickets, [whole])
            found = (await self._readings(tickets, deadline))[0]
        finally:
            self._give_back(tickets)
        yield Some(seq, begin, len(whole.ids), found.tokens[begin:], found.score)
        yield found if row.detail != "none" else found._replace(tokens=())

    async def _prefix(self, row: Row, encoded: Encoded, deadline: float) -> Scored | None:
        """The reading of the beginning of a text; None where there is nothing to score yet."""
        if not any(encoded.countable):
            return None
        try:
            tickets = self._admit([row._replace(detail="tokens")], deadline, begun=True)
        except Problem as problem:
            # The whole has its place already; a part that finds none is left out.
            if problem.kind == "queue-full":
                return None
            raise
        try:
            self._fill(tickets, [encoded])
            return (await self._readings(tickets, deadline))[0]
        except Problem as problem:
            if problem.kind in ("nothing-to-score", "queue-full"):
                return None
            raise
        finally:
            self._give_back(tickets)
