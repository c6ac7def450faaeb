"""What is read of a body that nobody wants, on the clock of the loop and to the byte."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message
from tests.monitor.http.desk import Desk

from perimetry.monitor.http.app import service_of
from perimetry.monitor.http.ids import Names

PIECE = 65536


class Client:
    """Sends pieces for as long as it is asked for more; counts them."""

    def __init__(self, path: str, headers: dict[str, str], pieces: int | None) -> None:
        asked = {"host": "127.0.0.1", "content-type": "application/json"} | headers
        self.scope = {
            "type": "http", "method": "POST", "path": path, "query_string": b"", "scheme": "http", "root_path": "",
            "client": ("127.0.0.1", 1), "headers": [(k.encode(), v.encode()) for k, v in asked.items()],
        }  # fmt: skip
        self.left, self.taken, self.sent = pieces, 0, list[Message]()

    async def receive(self) -> Message:
        if self.left == 0:
            await asyncio.Event().wait()
        if self.left is not None:
            self.left -= 1
        self.taken += PIECE
        return {"type": "http.request", "body": b" " * PIECE, "more_body": True}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def answer(self, desk: Desk) -> tuple[int, dict[bytes, bytes]]:
        async def talk() -> None:
            app = desk.fresh()
            await app(self.scope, self.receive, self.send)
            assert service_of(app).room.used == 0

        asyncio.run(talk())
        return self.sent[0]["status"], dict(self.sent[0]["headers"])


def test_of_a_body_without_end_one_piece_too_many_is_read() -> None:
    client = Client("/v1/score", {"transfer-encoding": "chunked"}, None)
    status, headers = client.answer(Desk())
    assert status == 413
    assert headers[b"connection"] == b"close"
    assert client.taken <= 2 * 2**20 + PIECE


@pytest.mark.parametrize("path", ["/v1/score", "/nowhere", "/v1/drift"])
def test_of_a_body_that_is_declared_too_large_nothing_is_read(path: str) -> None:
    client = Client(path, {"content-length": "10000000"}, None)
    status, headers = client.answer(Desk())
    assert status in (404, 405, 413)
    assert headers[b"connection"] == b"close"
    assert client.taken == 0


def test_a_small_body_that_nobody_wants_is_read_so_that_the_answer_arrives() -> None:
    client = Client("/nowhere", {"content-length": str(PIECE)}, 1)
    status, _ = client.answer(Desk())
    assert (status, client.taken) == (404, PIECE)


def test_a_body_that_stops_coming_is_slow() -> None:
    client = Client("/v1/score", {"content-length": "1000000"}, 1)
    status, headers = client.answer(Desk(body_s=0.05))
    assert (status, headers[b"connection"]) == (408, b"close")


def test_a_client_that_hangs_up_within_its_body_is_told_nothing() -> None:
    client = Client("/v1/score", {"content-length": "1000000"}, None)

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    client.receive = gone  # type: ignore[method-assign]
    desk = Desk()

    async def talk() -> Any:
        app = desk.fresh()
        await app(client.scope, client.receive, client.send)
        labels = {"route": "/v1/score", "outcome": "cancelled"}
        return service_of(app).metrics.registry.get_sample_value("perimetry_requests_total", labels)

    assert asyncio.run(talk()) == 1
    assert client.sent == []


def test_a_client_that_hangs_up_while_it_is_scored_cancels_the_work() -> None:
    desk = Desk()
    desk.engine.before = asyncio.Event().wait  # pyright: ignore[reportAttributeAccessIssue]
    client = Client("/v1/score", {"content-length": "14"}, None)
    steps = [{"type": "http.request", "body": b'{"input": "a"}', "more_body": False}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        if len(steps) == 1:
            while not desk.engine.running:
                await asyncio.sleep(0)
        return steps.pop(0)

    client.receive = receive  # type: ignore[method-assign]

    async def talk() -> None:
        app = desk.fresh()
        await app(client.scope, client.receive, client.send)
        assert service_of(app).room.used == 0

    asyncio.run(talk())
    assert (desk.engine.cancelled, desk.engine.running, client.sent) == (1, 0, [])
    assert desk.sink.put_events == []


def test_names_ascend_whatever_the_clock_does() -> None:
    now = iter([5, 5, 3, 1_000, 2, *[2] * 5000])
    names = Names(lambda: next(now))
    made = [names.fresh() for _ in range(5005)]
    assert made == sorted(set(made))
    assert all(name[14] == "7" and name[19] in "89ab" for name in made)
