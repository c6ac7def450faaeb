"""From texts to verdicts: the one place where the service asks the engine, and where a reading becomes flagged or not.

No score that is not a number, and no p-value outside (0, 1], leaves it: such a text is an error.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeVar, final

from perimetry.monitor.engine import Detail, Engine, Row, Scored, Some
from perimetry.monitor.http.calls import closed, where
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.ids import Names
from perimetry.monitor.http.metrics import Metrics
from perimetry.monitor.http.sinks import EventSink, Listener, NewEvent, Outcome
from perimetry.monitor.problems import Problem

__all__ = ["Judge", "Judged", "Wanted", "chat", "check", "plain", "text_of"]

T = TypeVar("T")

_log = logging.getLogger("perimetry.monitor.http")

GRACE_S: Final = 0.02
"""The engine ends at the deadline; this is how long it may take to say so before it is not waited for any more."""


class Wanted(NamedTuple):
    """What is asked of the texts of one request."""

    rows: Sequence[Row]
    """The texts."""
    alpha: float
    """False-alarm rate."""
    began: float
    """When the request began, on the clock of the event loop."""
    deadline: float
    """When the answer is due, on the same clock."""
    adapter: str
    """Which contract the request came by."""
    request_id: str
    """What its events are known by."""
    metadata: Mapping[str, str]
    """Kept with the events."""


class Judged(NamedTuple):
    """One text with its verdict."""

    id: str
    """What the score is known by."""
    row: Row
    """The text."""
    scored: Scored
    """Its reading."""
    alpha: float
    """False-alarm rate."""
    flagged: bool
    """Whether its p-value is at most that."""
    created: datetime
    """When, UTC."""
    total_ms: float
    """From the head of the request until now."""
    event: Outcome
    """What became of its event."""


def plain(text: str, detail: Detail = "none", top_concepts: int = 8) -> Row:
    """A row of raw text."""
    return Row((("", text),), detail, top_concepts)


def chat(messages: Sequence[tuple[str, str]], detail: Detail = "none", top_concepts: int = 8) -> Row:
    """A row of a chat: role and content of each message."""
    return Row(tuple(messages), detail, top_concepts)


def text_of(row: Row) -> str:
    """The words of a row, without roles: messages joined by line ends."""
    return "\n".join(content for _, content in row.messages)


def check(scored: Scored, alpha: float) -> None:
    """Refuse a reading that is none. Errors: `Problem` of `non-finite` or `alpha-unreachable`."""
    numbers = [scored.score, *(t.score for t in scored.tokens if t.score is not None)]
    numbers += [concept.energy for concept in scored.concepts]
    if not all(map(math.isfinite, numbers)) or not 0 < scored.p_value <= 1 or scored.n_calibration < 1:
        raise Problem("non-finite")
    if alpha < 1 / (scored.n_calibration + 1):
        raise Problem("alpha-unreachable", _least(1 / (scored.n_calibration + 1)))


def _least(alpha: float) -> str:
    return f"the calibration of this group can tell {alpha:.6g} and above"


async def _in_time(work: Awaitable[T], deadline: float) -> T:
    """The result of the engine. Errors: `Problem`, whatever went wrong: a fault's message may hold a prompt."""
    limit = asyncio.timeout_at(deadline + GRACE_S)
    try:
        async with limit:
            return await work
    except Problem:
        raise
    except Exception as fault:
        if limit.expired():
            raise Problem("deadline") from None
        _log.error("fault %s of the engine: %s", type(fault).__name__, where(fault))
        raise Problem("internal") from None


@final
class Judge:
    """Scores texts, judges them, tells whoever listens, and hands them to the store."""

    def __init__(
        self,
        config: HttpConfig,
        engine: Engine,
        sink: EventSink,
        metrics: Metrics,
        names: Names,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.config, self.engine, self.metrics = config, engine, metrics
        self._sink, self._names, self._listeners = sink, names, listeners

    def check_model(self, name: str) -> None:
        """Refuse a request that means another model. Errors: `Problem` of `unknown-model`."""
        revision = self.engine.artifact["model_rev"]
        if name not in {revision, revision.partition("@")[0], self.config.model}:
            raise Problem("unknown-model")

    def _check_before(self, wanted: Wanted) -> None:
        most = self.config.limits.text_bytes
        for row in wanted.rows:
            if sum(len(content.encode("utf-8", "surrogatepass")) for _, content in row.messages) > most:
                raise Problem("too-large", f"at most {most} bytes of one text are taken")
        least = min((group.alpha_min for group in self.engine.groups), default=0.0)
        if wanted.alpha < least:
            raise Problem("alpha-unreachable", _least(least))
        if asyncio.get_running_loop().time() >= wanted.deadline:
            raise Problem("deadline")

    async def judge(self, wanted: Wanted) -> list[Judged]:
        """Verdicts in the order of the texts, all or none. Errors: `Problem`, those of the engine among them."""
        with self._failures(wanted):
            self._check_before(wanted)
            found = await _in_time(self.engine.score(wanted.rows, wanted.deadline), wanted.deadline)
            if len(found) != len(wanted.rows):
                raise Problem("internal")
            for scored in found:
                check(scored, wanted.alpha)
        return [await self._settle(wanted, row, scored) for row, scored in zip(wanted.rows, found, strict=True)]

    async def stream(self, wanted: Wanted, flush_tokens: int) -> AsyncIterator[Some | Judged]:
        """Parts of the one text as they are done, then its verdict. Errors: as `judge`."""
        with self._failures(wanted):
            self._check_before(wanted)
            row = wanted.rows[0]
            parts = aiter(self.engine.stream(row, flush_tokens, wanted.deadline))
            try:
                while True:
                    part = await _in_time(anext(parts), wanted.deadline)
                    if isinstance(part, Scored):
                        check(part, wanted.alpha)
                        yield await self._settle(wanted, row, part)
                        return
                    scores = [t.score for t in part.tokens if t.score is not None]
                    if not all(map(math.isfinite, [part.running_score, *scores])):
                        raise Problem("non-finite")
                    yield part
            finally:
                await closed(parts)

    @contextlib.contextmanager
    def _failures(self, wanted: Wanted) -> Iterator[None]:
        """Tell whoever listens of a `Problem` that comes by."""
        try:
            yield
        except Problem as problem:
            kind = problem.kind
            self._tell(lambda one: one.failed(wanted.adapter, wanted.alpha, kind))
            raise

    def _tell(self, say: Callable[[Listener], None]) -> None:
        for listener in self._listeners:
            try:
                say(listener)
            except Exception as fault:
                _log.error("fault %s of a listener: %s", type(fault).__name__, where(fault))

    async def _settle(self, wanted: Wanted, row: Row, scored: Scored) -> Judged:
        flagged = scored.p_value <= wanted.alpha
        name, created = self._names.fresh(), datetime.now(UTC)
        self.metrics.scored(scored.group, scored.p_value, flagged=flagged, fallback=scored.fallback)
        event = NewEvent(
            uuid=name,
            request_id=wanted.request_id,
            created=created,
            adapter=wanted.adapter,
            text=text_of(row),
            n_tokens=scored.n_tokens,
            score=scored.score,
            p_value=scored.p_value,
            flagged=flagged,
            group=scored.group,
            outcome="ok",
            artifact=self.engine.artifact,
            concepts=scored.concepts,
            queue_ms=scored.queue_ms,
            forward_ms=scored.forward_ms,
            metadata=wanted.metadata,
            summary=scored.summary,
        )
        self._tell(lambda one: one.scored(event, wanted.alpha))
        kept = await self._keep(event, wanted.deadline)
        total = 1000 * (asyncio.get_running_loop().time() - wanted.began)
        return Judged(name, row, scored, wanted.alpha, flagged, created, total, kept)

    async def _keep(self, event: NewEvent, deadline: float) -> Outcome:
        """Hand it to the store, whose faults cost the event and never the score."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self._sink.put(event)
        except TimeoutError:
            return "queued"
        except Exception:
            self.metrics.events_dropped.labels("store").inc()
            return "dropped"
