"""Events in pages and as they come; drift."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message
from tests.monitor.fakes import FakeEngine, MemorySink
from tests.monitor.http.desk import Desk, assert_problem
from tests.monitor.hub import Hub

from perimetry.monitor.http.app import create_app, service_of
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.sinks import Gap, NoSink, Stored
from perimetry.monitor.problems import Problem


def test_events_come_in_pages() -> None:
    desk = Desk()

    async def use(client: httpx.AsyncClient) -> list[httpx.Response]:
        await client.post("/v1/score", json={"inputs": ["a", "odd", "b"]})
        asked = ["", "?limit=2", "?since=2", "?flagged=true", "?flagged=false&limit=1", "?group=long"]
        return [await client.get("/v1/events" + query) for query in asked]

    pages = [answer.json() for answer in desk.ask(use)]
    assert [[event["id"] for event in page["events"]] for page in pages] == [[1, 2, 3], [1, 2], [3], [2], [1], []]
    assert [page["next"] for page in pages] == [None, 2, None, None, 1, None]
    assert pages[0]["dropped_total"] == 0
    assert pages[0]["events"][0]["text"] is None


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=1e2", "since=-1", f"since={2**63}", "flagged=maybe", "from=yesterday", "from=5",
     "to=2026-01-31T12:00:00", "made=up", "group=" + "x" * 65, "limit=%D9%A1"],
)  # fmt: skip
def test_what_is_no_query_is_invalid(query: str) -> None:
    assert_problem(Desk().get(f"/v1/events?{query}"), "invalid", 422)


def test_moments_have_a_zone() -> None:
    answer = Desk().get("/v1/events", params={"from": "2026-01-31T12:00:00Z", "to": "2026-01-31T13:00:00.5+01:00"})
    assert answer.status_code == 200


class Listener:
    """One listener to the live tail, without a socket: what it got, and a way to hang up."""

    def __init__(self, app: FastAPI, headers: dict[str, str]) -> None:
        self.app, self.text, self.status = app, "", 0
        self.news, self.gone = asyncio.Event(), asyncio.Event()
        asked = {"host": "127.0.0.1", "accept": "text/event-stream"} | headers
        self.scope = {
            "type": "http", "method": "GET", "path": "/v1/events", "query_string": b"", "scheme": "http", "root_path": "",
            "client": ("127.0.0.1", 1), "headers": [(k.encode(), v.encode()) for k, v in asked.items()],
        }  # fmt: skip
        self.asked = False

    async def receive(self) -> Message:
        if not self.asked:
            self.asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.text += message.get("body", b"").decode()
        self.news.set()

    def run(self) -> asyncio.Task[None]:
        return asyncio.ensure_future(self.app(self.scope, self.receive, self.send))

    async def until(self, piece: str) -> None:
        while piece not in self.text:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 5)


def test_a_tail_replays_then_follows_and_leaves_no_place_behind() -> None:
    desk = Desk(ping_s=0.05)

    async def use(client: httpx.AsyncClient) -> None:
        await client.post("/v1/score", json={"inputs": ["a", "odd", "b"]})
        listener = Listener(desk.app, {"last-event-id": "1"})
        task = listener.run()
        await listener.until("id: 3\n")
        assert "id: 1\n" not in listener.text
        assert desk.sink.hub.listeners == 1
        await client.post("/v1/score", json={"input": "new"})
        await listener.until("id: 4\n")
        await listener.until(": ping\n\n")
        data = [json.loads(line[6:]) for line in listener.text.split("\n") if line.startswith("data: ")]
        assert [event["id"] for event in data] == [2, 3, 4]
        listener.gone.set()
        await task
        assert desk.sink.hub.listeners == 0
        assert service_of(desk.app).room.used == 0

    desk.ask(use)


def test_tails_are_few_and_end_when_the_service_stops() -> None:
    desk = Desk()
    desk.sink = MemorySink(most=2)

    async def use(client: httpx.AsyncClient) -> None:
        listeners = [Listener(desk.app, {}) for _ in range(2)]
        tasks = [listener.run() for listener in listeners]
        while desk.sink.hub.listeners < 2:
            await asyncio.sleep(0)
        refused = await client.get("/v1/events", headers={"accept": "text/event-stream"})
        assert_problem(refused, "subscribers", 503)
        service_of(desk.app).drain()
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
        assert desk.sink.hub.listeners == 0

    desk.ask(use)


def test_a_tail_from_nowhere_is_invalid() -> None:
    answer = Desk().get("/v1/events", headers={"accept": "text/event-stream", "last-event-id": "x"})
    assert_problem(answer, "invalid", 422)


async def collect(found: AsyncIterator[Stored | Gap], count: int) -> list[object]:
    got: list[object] = []
    while len(got) < count:
        one = await anext(found)
        got.append(one if isinstance(one, Gap) else one["id"])
    return got


def test_a_slow_listener_is_told_what_it_missed() -> None:
    async def talk() -> None:
        hub = Hub(buffer=3)
        slow, fast = hub.listen(), hub.listen([{"id": 1}])
        for number in range(1, 6):
            hub.publish({"id": number})
            assert (await collect(fast, 1)) == [number] or number == 1
        assert await collect(slow, 4) == [Gap(2), 3, 4, 5]
        hub.close()
        with pytest.raises(StopAsyncIteration):
            await anext(slow)
        assert hub.listeners == 1

    asyncio.run(talk())


def test_places_are_counted_from_the_call_on() -> None:
    async def talk() -> None:
        hub = Hub(most=1)
        first = hub.listen()
        with pytest.raises(Problem) as refused:
            hub.listen()
        assert refused.value.kind == "subscribers"
        await first.aclose()  # pyright: ignore[reportAttributeAccessIssue]
        hub.listen()

    asyncio.run(talk())


def test_a_service_without_store_and_drift() -> None:
    desk = Desk()
    desk.fresh = lambda: create_app(HttpConfig(), FakeEngine(), NoSink())  # type: ignore[method-assign]
    assert desk.post("/v1/score", json={"input": "a"}).json()["event"] == "off"
    assert desk.get("/v1/events").json() == {"events": [], "next": None, "dropped_total": 0}
    assert desk.get("/v1/events", headers={"accept": "text/event-stream"}).text == ""
    assert assert_problem(desk.get("/v1/drift"), "loading", 503)["retry_after_s"] == 60
    assert assert_problem(desk.post("/v1/drift/acknowledge"), "loading", 503)["retry_after_s"] == 60


def test_drift_is_told_as_it_is_known() -> None:
    desk = Desk()
    found = desk.get("/v1/drift").json()
    assert found["state"] == "ok"
    assert found["tests"][0]["effect_ci95"] == [0.48, 0.54]
    assert desk.drift.acknowledged == 0
    assert desk.post("/v1/drift/acknowledge").json() == found
    assert desk.drift.acknowledged == 1
