"""Between the HTTP layer, which hands in what was scored, and the event store, which keeps it."""

import asyncio
import datetime
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, final

from perimetry.monitor.baseline import pack_summary
from perimetry.monitor.http.calls import closed
from perimetry.monitor.http.sinks import EventPage, EventQuery, Gap, NewEvent, Outcome, Slice, Stored
from perimetry.monitor.problems import Problem
from perimetry.monitor.store import events as kept
from perimetry.monitor.store import tail
from perimetry.monitor.store.event_store import EventStore
from perimetry.monitor.store.reading import Filter
from perimetry.monitor.store.rollups import MINUTE_US, Rollup

__all__ = ["StoreSink", "event_of", "row_of"]

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICRO = datetime.timedelta(microseconds=1)


def _us(when: datetime.datetime) -> int:
    """Microseconds since 1970, exact; 0 for what lies before."""
    return max(0, (when - _EPOCH) // _MICRO)


def event_of(new: NewEvent, prompt_hmac: bytes) -> kept.Event:
    """What is kept of a text that was scored."""
    seen = {c.latent: kept.ConceptSeen(c.latent, c.energy, c.n_tokens, c.max_token) for c in new.concepts}
    return kept.Event(
        uuid=new.uuid,
        ts_us=_us(new.created),
        request_id=new.request_id,
        artifact_id=new.artifact["calibration_sha256"],
        adapter=new.adapter,
        prompt_hmac=prompt_hmac,
        n_chars=len(new.text),
        n_tokens=new.n_tokens,
        group_id=new.group,
        score=new.score,
        p_value=new.p_value,
        flagged=new.flagged,
        outcome=new.outcome,
        queue_us=round(1e3 * new.queue_ms),
        forward_us=round(1e3 * new.forward_ms),
        summary=None if new.summary is None else pack_summary(new.summary),
        metadata=dict(new.metadata),
        concepts=tuple(seen.values()),
        text=new.text,
    )


def row_of(stored: kept.Stored) -> dict[str, Any]:
    """A kept event in the words of the contract."""
    event = stored.event
    return {
        "id": stored.id,
        "request_id": event.request_id,
        "ts": (_EPOCH + event.ts_us * _MICRO).isoformat(),
        "prompt_hmac": event.prompt_hmac.hex(),
        "n_chars": event.n_chars,
        "n_tokens": event.n_tokens,
        "score": event.score,
        "p_value": event.p_value,
        "flagged": event.flagged,
        "group": event.group_id,
        "outcome": event.outcome,
        "adapter": event.adapter,
        "artifact": event.artifact_id,
        "concepts": [
            {"index": one.concept, "energy": one.energy, "count": one.tokens, "max_token": one.max_token}
            for one in event.concepts
        ],
        "text": event.text,
    }


class _Listener(AsyncIterator["Stored | Gap"]):
    """Events as they are committed. Its place is taken when it is made, not when it is first asked."""

    def __init__(self, sink: "StoreSink", after: int | None) -> None:
        self._sink, self._events, self._open = sink, sink.store.follow(after), True
        sink.listeners += 1

    async def __anext__(self) -> Stored | Gap:
        found = await anext(self._events)
        return Gap(found.missed) if isinstance(found, tail.Gap) else row_of(found)

    async def aclose(self) -> None:
        """Give the place back."""
        if self._open:
            self._open = False
            self._sink.listeners -= 1
            await closed(self._events)


@final
class StoreSink:
    """An `EventSink` that keeps events in a store. Owned by one event loop."""

    def __init__(self, store: EventStore, *, listeners: int = 16, required: bool = False) -> None:
        """`store`: open. `listeners`: how many may follow at once. `required`: whether a store that cannot write makes the service not ready."""
        self.store = store
        self.listeners = 0
        """How many follow now."""
        self._most, self._required = listeners, required
        self._known: set[str] = set()
        self._recording: set[asyncio.Task[Any]] = set()

    async def put(self, event: NewEvent) -> Outcome:
        """As `EventSink.put`."""
        self._record(event)
        return await self.store.put(event_of(event, self.store.hmac((("", event.text),))))

    def _record(self, event: NewEvent) -> None:
        """Note once what the artifact is made of."""
        name = event.artifact["calibration_sha256"]
        if name not in self._known:
            self._known.add(name)
            task = asyncio.create_task(self.store.record_artifact(name, _us(event.created), event.artifact))
            self._recording.add(task)
            task.add_done_callback(self._recording.discard)

    async def page(self, query: EventQuery) -> EventPage:
        """As `EventSink.page`."""
        wanted = Filter(
            None if query.begin is None else _us(query.begin),
            None if query.end is None else _us(query.end),
            query.flagged,
            query.group,
        )
        try:
            found = await asyncio.to_thread(self.store.reader.page, query.since or 0, wanted, query.limit)
        except Exception as fault:
            raise Problem("internal", "the event store cannot be read") from fault
        return EventPage([row_of(one) for one in found.events], found.next, found.dropped_total)

    async def traffic(self, begin: datetime.datetime, minutes: int) -> Sequence[Slice]:
        """As `EventSink.traffic`."""
        first = _us(begin) // MINUTE_US
        try:
            sums = await asyncio.to_thread(self.store.reader.rollups, first, 2**40, minutes)
        except Exception as fault:
            raise Problem("internal", "the event store cannot be read") from fault
        found: dict[int, Rollup] = {}
        for one in sums:
            found[one.minute] = found[one.minute].merge(one) if one.minute in found else one
        return [
            Slice(_EPOCH + minute * MINUTE_US * _MICRO, one.n, one.flagged, one.histogram)
            for minute, one in sorted(found.items())
        ]

    async def tail(self, after: int | None) -> AsyncIterator[Stored | Gap]:
        """As `EventSink.tail`."""
        if self.listeners >= self._most:
            raise Problem("subscribers", retry_after_s=5)
        return _Listener(self, after)

    def checks(self) -> Mapping[str, str]:
        """As `EventSink.checks`."""
        return {"store": self.store.state().trouble or "ok"} if self._required else {}
