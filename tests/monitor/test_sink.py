"""What was scored reaches the store whole, and comes back in the words of the contract."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.monitor.fakes import ARTIFACT
from tests.monitor.store.makers import uuid_at

from perimetry.monitor.engine import ConceptScored
from perimetry.monitor.http.sinks import EventQuery, EventSink, Gap, NewEvent
from perimetry.monitor.http.views import Event
from perimetry.monitor.problems import Problem
from perimetry.monitor.sink import StoreSink
from perimetry.monitor.store.event_store import EventStore
from perimetry.monitor.store.store_config import StoreConfig

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def new(at: int = 0, **more: Any) -> NewEvent:
    created = NOON + timedelta(seconds=at)
    made: dict[str, Any] = {
        "uuid": uuid_at(round(created.timestamp() * 1e6)),
        "request_id": f"r{at}",
        "created": created,
        "adapter": "score",
        "text": "some words",
        "n_tokens": 3,
        "score": 1.5,
        "p_value": 0.25,
        "flagged": False,
        "group": "short",
        "outcome": "ok",
        "artifact": ARTIFACT,
        "concepts": (ConceptScored(7, None, 2.5, 2, 1, ()),),
        "queue_ms": 1.25,
        "forward_ms": 2.5,
        "metadata": {"who": "a test"},
    }
    return NewEvent(**made | more)


def run(tmp_path: Path, use: Callable[[StoreSink], Awaitable[None]], **more: Any) -> None:
    async def work() -> None:
        store = EventStore(StoreConfig(folder=tmp_path / "events", ack="commit")).open()
        try:
            async with asyncio.timeout(30):
                await use(StoreSink(store, **more))
        finally:
            store.close()

    asyncio.run(work())


def test_an_event_comes_back_as_it_was(tmp_path: Path) -> None:
    async def use(sink: StoreSink) -> None:
        assert isinstance(sink, EventSink)
        assert await sink.put(new()) == "committed"
        page = await sink.page(EventQuery())
        (found,) = page.events
        Event.model_validate(found)
        assert found["ts"] == NOON.isoformat()
        assert (found["n_chars"], found["n_tokens"], found["score"], found["p_value"]) == (10, 3, 1.5, 0.25)
        assert found["concepts"] == [{"index": 7, "energy": 2.5, "count": 2, "max_token": 1}]
        assert found["artifact"] == ARTIFACT["calibration_sha256"]
        assert found["text"] is None
        assert (page.next, page.dropped_total) == (None, 0)
        (stored,) = sink.store.reader.page().events
        assert (stored.event.queue_us, stored.event.forward_us, dict(stored.event.metadata)) == (
            1250,
            2500,
            {"who": "a test"},
        )

    run(tmp_path, use)


def test_the_same_words_have_the_same_name_and_others_another(tmp_path: Path) -> None:
    async def use(sink: StoreSink) -> None:
        for at, text in enumerate(("a", "b", "a")):
            await sink.put(new(at, text=text))
        names = [event["prompt_hmac"] for event in (await sink.page(EventQuery())).events]
        assert names[0] == names[2] != names[1]

    run(tmp_path, use)


def test_questions_reach_the_database(tmp_path: Path) -> None:
    async def use(sink: StoreSink) -> None:
        for at in range(6):
            await sink.put(new(at, flagged=at % 2 == 0, group="long" if at > 3 else "short"))

        async def ids(**asked: Any) -> list[int]:
            return [event["id"] for event in (await sink.page(EventQuery(**asked))).events]

        assert await ids(flagged=True) == [1, 3, 5]
        assert await ids(group="long") == [5, 6]
        assert await ids(since=4) == [5, 6]
        assert await ids(begin=NOON + timedelta(seconds=1), end=NOON + timedelta(seconds=3)) == [2, 3]
        assert (await sink.page(EventQuery(limit=2))).next == 2

    run(tmp_path, use)


def test_what_an_artifact_is_made_of_is_kept_once(tmp_path: Path) -> None:
    async def use(sink: StoreSink) -> None:
        await sink.put(new(0))
        await sink.put(new(1))
        while not (found := await asyncio.to_thread(sink.store.reader.artifacts)):
            await asyncio.sleep(0.01)
        assert found == {ARTIFACT["calibration_sha256"]: ARTIFACT}

    run(tmp_path, use)


@asynccontextmanager
async def following(sink: StoreSink, after: int | None) -> AsyncIterator[AsyncIterator[Any]]:
    found = await sink.tail(after)
    try:
        yield found
    finally:
        await found.aclose()  # type: ignore[attr-defined]


def test_listeners_hear_what_comes_and_what_was_and_are_counted(tmp_path: Path) -> None:
    async def use(sink: StoreSink) -> None:
        await sink.put(new(0))
        async with following(sink, None) as live, following(sink, 0) as replayed:
            waiting = asyncio.ensure_future(anext(live))
            assert (await anext(replayed))["id"] == 1
            with pytest.raises(Problem, match="subscribers"):
                await sink.tail(None)
            await sink.put(new(1))
            heard = await waiting
            assert not isinstance(heard, Gap)
            assert heard["id"] == 2
        assert sink.listeners == 0
        async with following(sink, None):
            assert sink.listeners == 1

    run(tmp_path, use, listeners=2)


def test_a_store_that_must_write_and_cannot_makes_the_service_not_ready(tmp_path: Path) -> None:
    async def use(sink: StoreSink) -> None:
        assert sink.checks() == {"store": "ok"}
        assert StoreSink(sink.store).checks() == {}

    run(tmp_path, use, required=True)


def test_a_store_that_cannot_be_read_is_a_problem_and_no_fault(tmp_path: Path) -> None:
    async def use(sink: StoreSink) -> None:
        await sink.put(new())
        sink.store.close()
        with pytest.raises(Problem, match="internal"):
            await sink.page(EventQuery())

    run(tmp_path, use)
