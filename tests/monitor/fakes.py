"""An engine, a store and a drift that do what a test tells them, without a model and without a disk."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tests.monitor.hub import Hub

from perimetry.monitor.engine import ConceptScored, GroupFacts, Row, Scored, Some, TokenScored
from perimetry.monitor.http.sinks import EventPage, EventQuery, Gap, NewEvent, Outcome, Slice, Stored

ARTIFACT = {
    "model_rev": "tiny/llama@0123abcd",
    "tap": "resid_post.1",
    "sae_sha256": "a" * 64,
    "calibration_sha256": "b" * 64,
    "dtype": "float32",
    "backend": "cpu",
}
N = 1000


def tokens_of(text: str) -> tuple[TokenScored, ...]:
    """Words as tokens; one that holds "odd" scores 9, the others 1; the first is special."""
    found, at = [TokenScored(0, 0, "", True, None)], 0
    for word in text.split(" "):
        if word:
            found.append(TokenScored(at, at + len(word), word, False, 9.0 if "odd" in word else 1.0))
        at += len(word) + 1
    return tuple(found)


def scored(row: Row) -> Scored:
    """A text with "odd" in it is far outside."""
    text = "\n".join(content for _, content in row.messages)
    tokens = tokens_of(text)
    concept = ConceptScored(7, None, 2.5, 1, 1, ("a «clean» passage",))
    return Scored(
        score=9.0 if "odd" in text else 1.0,
        p_value=1 / (N + 1) if "odd" in text else 0.5,
        group="short",
        fallback=False,
        n_calibration=N,
        n_tokens=len(tokens),
        scored_tokens=len(tokens) - 1,
        tokens=tokens if row.detail != "none" else (),
        concepts=(concept,) if row.detail == "concepts" else (),
        queue_ms=1.0,
        forward_ms=2.0,
    )


class FakeEngine:
    """Scores by `scored`, unless told otherwise."""

    def __init__(self) -> None:
        self.artifact: Mapping[str, str] = ARTIFACT
        self.groups: Sequence[GroupFacts] = (
            GroupFacts("short", N, 1 / (N + 1), 8.0, 0.0048, 0.017),
            GroupFacts("pooled", 2 * N, 1 / (2 * N + 1), None, 0.0062, 0.0147),
        )
        self.card: Mapping[str, Any] = {}
        self.state = {"worker": "ok", "sentinel": "ok"}
        self.before: Callable[[], Awaitable[None]] | None = None
        """Awaited before anything is scored."""
        self.change: Callable[[Scored], Scored] = lambda found: found
        self.calls = self.running = self.cancelled = 0
        self.started = self.stopped = False
        self.start_fault: Exception | None = None

    @property
    def limits(self) -> Mapping[str, int]:
        return {"prompt_tokens": 8192, "request_tokens": 32768, "queue_rows": 512, "queue_tokens": 131072}

    def checks(self) -> Mapping[str, str]:
        return self.state

    async def score(self, rows: Sequence[Row], deadline: float) -> list[Scored]:
        self.calls += 1
        self.running += 1
        try:
            if self.before is not None:
                await self.before()
            return [self.change(scored(row)) for row in rows]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def stream(self, row: Row, flush_tokens: int, deadline: float) -> AsyncIterator[Some | Scored]:
        whole = self.change(scored(row))
        self.running += 1
        try:
            for seq, begin in enumerate(range(0, len(whole.tokens), flush_tokens)):
                part = whole.tokens[begin : begin + flush_tokens]
                yield Some(seq, begin, begin + len(part), part, whole.score)
                if self.before is not None:
                    await self.before()
            yield whole
        finally:
            self.running -= 1

    async def start(self) -> None:
        if self.start_fault is not None:
            raise self.start_fault
        self.started = True

    async def lost(self) -> str:
        await asyncio.Event().wait()
        return ""

    async def stop(self) -> None:
        self.stopped = True


def slice_of(begin: datetime, events: Sequence[NewEvent]) -> Slice:
    """Sums of these events."""
    bins = [0] * 20
    for event in events:
        bins[max(0, math.ceil(event.p_value * 20) - 1)] += 1
    return Slice(begin, len(events), sum(event.flagged for event in events), bins)


class MemorySink:
    """Keeps events in a list, and tells listeners."""

    def __init__(self, most: int = 16, buffer: int = 256) -> None:
        self.hub = Hub(most, buffer)
        self.events: list[dict[str, Any]] = []
        self.put_events: list[NewEvent] = []
        self.outcome: Outcome = "queued"
        self.fault: Exception | None = None

    async def put(self, event: NewEvent) -> Outcome:
        if self.fault is not None:
            raise self.fault
        self.put_events.append(event)
        kept = {
            "id": len(self.events) + 1,
            "request_id": event.request_id,
            "ts": event.created.isoformat(),
            "prompt_hmac": "0" * 32,
            "n_chars": len(event.text),
            "n_tokens": event.n_tokens,
            "score": event.score,
            "p_value": event.p_value,
            "flagged": event.flagged,
            "group": event.group,
            "outcome": event.outcome,
            "adapter": event.adapter,
            "artifact": event.artifact["calibration_sha256"],
            "concepts": [],
            "text": None,
        }
        self.events.append(kept)
        self.hub.publish(kept)
        return self.outcome

    async def page(self, query: EventQuery) -> EventPage:
        fitting = [
            event
            for event in self.events
            if event["id"] > (query.since or 0)
            and query.flagged in (None, event["flagged"])
            and query.group in (None, event["group"])
        ]
        page = fitting[: query.limit]
        return EventPage(page, page[-1]["id"] if len(fitting) > len(page) else None, 0)

    async def traffic(self, begin: datetime, minutes: int) -> Sequence[Slice]:
        found: dict[datetime, list[NewEvent]] = {}
        for event in self.put_events:
            if event.created >= begin and "synthetic" not in event.metadata:
                found.setdefault(event.created.replace(second=0, microsecond=0), []).append(event)
        return [slice_of(minute, events) for minute, events in sorted(found.items())]

    async def tail(self, after: int | None) -> AsyncIterator[Stored | Gap]:
        first = [] if after is None else [event for event in self.events if event["id"] > after][:1000]
        return self.hub.listen(first)

    def checks(self) -> Mapping[str, str]:
        return {}


class FakeDrift:
    """Nothing has changed."""

    acknowledged = 0

    async def acknowledge(self) -> bool:
        self.acknowledged += 1
        return True

    async def current(self) -> Mapping[str, Any]:
        return {
            "as_of": "2026-01-31T12:00:00Z",
            "state": "ok",
            "window": 500,
            "reference_n": N,
            "tests": [
                {
                    "name": "ks",
                    "statistic": 0.03,
                    "p_value": 0.4,
                    "effect": 0.51,
                    "effect_ci95": [0.48, 0.54],
                    "over": False,
                    "effect_name": "auroc",
                }
            ],
            "cusum": {"value": 0.0, "threshold": 9.5, "alarm": False},
            "budget": {"windows_per_false_alarm": 200.0, "observed": 0.0},
            "rising_concepts": [],
        }
