"""A real uvicorn on loopback against rude clients: refusals with a status, bounded memory, and nothing left at work afterwards."""

import asyncio
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest
from tests.monitor.http.live import Live, drained, live, status_of, within

MIB = 2**20
HEAD = b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
OLD = HEAD + b"Connection: close\r\n"


@pytest.fixture(scope="module")
def service() -> Iterator[Live]:
    with live(limits={"head_s": 1.0, "body_s": 1.0, "stalled_s": 1.0}) as found:
        found.http.post("/v1/score", json={"input": "warm"})
        yield found


@pytest.fixture
def grown(service: Live) -> Iterator[None]:
    """The memory of the service may grow by 32 MiB, and it goes on answering."""
    before = service.rss()
    yield
    assert service.rss() - before <= 32 * MIB
    assert service.http.post("/v1/score", json={"input": "a"}).status_code == 200
    assert service.idle()


@pytest.mark.usefixtures("grown")
def test_a_body_of_ten_megabytes(service: Live) -> None:
    body = b'{"input": "' + b"a" * 10_000_000 + b'"}'
    assert status_of(service.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(body), body)) == 413


@pytest.mark.usefixtures("grown")
def test_a_body_without_end(service: Live) -> None:
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"a" * 65536 + b"\r\n"
    assert status_of(service.send(head, *[chunk] * 400)) == 413


@pytest.mark.usefixtures("grown")
@pytest.mark.parametrize("path", [b"/v1/drift", b"/nowhere", b"/healthz"])
def test_a_body_without_end_where_none_is_wanted(service: Live, path: bytes) -> None:
    head = b"POST " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"a" * 65536 + b"\r\n"
    assert status_of(service.send(head, *[chunk] * 400)) in (404, 405)


@pytest.mark.usefixtures("grown")
def test_a_million_header_lines(service: Live) -> None:
    began = time.monotonic()
    assert status_of(service.send(HEAD, *[b"a: b\r\n" * 10_000] * 100, b"\r\n")) in (400, 431)
    assert time.monotonic() - began <= 1


@pytest.mark.usefixtures("grown")
@pytest.mark.parametrize("packets", [1, 10])
@pytest.mark.parametrize("lines", [1, 400])
def test_a_head_of_forty_kilobytes(service: Live, packets: int, lines: int) -> None:
    fields = b"".join(b"x-%d: %s\r\n" % (i, b"a" * (40_000 // lines)) for i in range(lines))
    head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + fields + b"\r\n"
    size = -(-len(head) // packets)
    pieces = [head[i : i + size] for i in range(0, len(head), size)]
    began = time.monotonic()
    with service.connect() as client:
        for piece in pieces:
            try:
                client.sendall(piece)
            except OSError:
                break
            if packets > 1:
                time.sleep(0.01)  # so that they are packets of their own
        client.settimeout(5)
        answer = client.recv(65536)
    assert status_of(answer) in (400, 431)
    assert time.monotonic() - began <= 1


async def drip(service: Live, head: bytes) -> float:
    """Seconds after which a connection that sends a byte now and then is closed."""
    reader, writer = await asyncio.open_connection(*service.where)
    began = asyncio.get_running_loop().time()
    reading = asyncio.ensure_future(reader.read())
    writer.write(head)
    while not reading.done():
        await asyncio.wait({reading}, timeout=0.2)
        writer.write(b"a")
    reading.exception()
    writer.close()
    return asyncio.get_running_loop().time() - began


async def drips(service: Live, head: bytes, count: int) -> tuple[list[float], int]:
    """Those of many connections, and how often others were answered meanwhile."""
    dripping = [asyncio.ensure_future(drip(service, head)) for _ in range(count)]
    everyone, answered = asyncio.gather(*dripping), 0
    async with httpx.AsyncClient(base_url=service.address) as client:
        while not everyone.done():
            assert (await client.get("/healthz")).status_code == 200
            answered += 1
            await asyncio.wait({everyone}, timeout=0.1)
    return await everyone, answered


@pytest.mark.usefixtures("grown")
@pytest.mark.parametrize(
    "head", [b"GET /healthz HT", HEAD + b"Content-Length: 99999\r\n\r\n", b""], ids=["head", "body", "first line"]
)
def test_slow_clients_are_closed_and_others_are_answered(service: Live, head: bytes) -> None:
    took, answered = asyncio.run(drips(service, head, 200))
    assert len(took) == 200
    assert max(took) <= 1.0 + 1.0
    assert answered > 1


@pytest.mark.usefixtures("grown")
def test_a_slow_body_is_told_why(service: Live) -> None:
    answer = service.send(HEAD + b'Content-Length: 99\r\n\r\n{"input')
    assert status_of(answer) == 408
    assert b"urn:perimetry:problem:slow-body" in answer


@pytest.mark.usefixtures("grown")
def test_a_connection_that_is_used_again_has_its_clock_too(service: Live) -> None:
    with service.connect() as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = b""
        while not answer.endswith(b'{"status":"ok"}'):
            answer += client.recv(65536)
        began = time.monotonic()
        client.sendall(b"GET /hea")
        assert drained(client) == b""
        assert 0.9 <= time.monotonic() - began <= 2


@pytest.mark.usefixtures("grown")
@pytest.mark.parametrize(
    ("body", "more", "statuses"),
    [
        (b"\x1f\x8b" + b"\0" * 1000, b"Content-Encoding: gzip\r\n", {415}),
        (b"[" * 100_000 + b"]" * 100_000, b"", {400}),
        (b'{"input": "\\ud83d"}', b"", {400, 422}),
        (b'{"input": "\xc3\x28"}', b"", {400}),
        (b'{"input": "' + b"a" * 200_000 + b'"}', b"", {200}),
        ('{"input": "' + "\u200b\u0301" * 50_000 + '"}', b"", {200, 413, 422}),
    ],
    ids=["gzip", "depth", "surrogate", "utf-8", "one letter", "zero width"],
)
def test_bodies_that_are_none(service: Live, body: bytes | str, more: bytes, statuses: set[int]) -> None:
    data = body if isinstance(body, bytes) else body.encode()
    began = time.monotonic()
    assert status_of(service.send(OLD + more + b"Content-Length: %d\r\n\r\n" % len(data), data)) in statuses
    assert time.monotonic() - began <= 1


@pytest.fixture(scope="module")
def small() -> Iterator[Live]:
    with live(limits={"stalled_s": 1.0}, small_buffers=True) as found:
        yield found


def unread(service: Live, asked: bytes) -> socket.socket:
    """A client that asks and never reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(service.where)
    client.sendall(asked)
    return client


def test_clients_that_do_not_read_a_stream_are_cut_off(small: Live) -> None:
    body = b'{"flush_tokens": 16, "input": "' + b"ab " * 20_000 + b'"}'
    head = HEAD.replace(b"/v1/score", b"/v1/score/stream") + b"Content-Length: %d\r\n\r\n" % len(body)
    clients = [unread(small, head + body) for _ in range(4)]
    assert within(20, lambda: small.metric("perimetry_inflight") > 0)
    assert small.http.post("/v1/score", json={"input": "a"}).status_code == 200
    assert small.idle(within_s=20.0)
    for client in clients:
        client.close()


def test_listeners_that_do_not_read_lose_their_places(small: Live) -> None:
    asked = b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
    clients = [unread(small, asked) for _ in range(16)]
    assert within(20, lambda: small.metric("perimetry_inflight") == 16)
    stream = {"accept": "text/event-stream"}
    assert small.http.get("/v1/events", headers=stream).status_code == 503
    for _ in range(40):
        assert small.http.post("/v1/score", json={"inputs": ["a"] * 32}).status_code == 200
    assert small.idle(within_s=20.0)
    with small.http.stream("GET", "/v1/events", headers=stream) as tail:
        assert tail.status_code == 200
    for client in clients:
        client.close()


class Answer(NamedTuple):
    """What one of many was told."""

    status: int
    head: bytes
    seconds: float


async def ask(service: Live) -> Answer:
    body = b'{"input": "a", "timeout_ms": 5000}'
    reader, writer = await asyncio.open_connection(*service.where)
    began = asyncio.get_running_loop().time()
    writer.write(OLD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    found = await reader.read()
    writer.close()
    return Answer(status_of(found), found.partition(b"\r\n\r\n")[0].lower(), asyncio.get_running_loop().time() - began)


async def crowd(service: Live, count: int) -> list[Answer]:
    return await asyncio.gather(*(ask(service) for _ in range(count)))


@pytest.mark.parametrize("connections", [900, 2000], ids=["too many connections", "too many requests"])
def test_a_thousand_at_once_are_answered_or_refused(connections: int) -> None:
    limits = {"rate_per_s": 100.0, "burst": 300, "in_flight": 64, "connections": connections}
    with live(limits=limits, delay_s=0.2) as service:
        answers = asyncio.run(crowd(service, 1000))
        counted = Counter(answer.status for answer in answers)
        assert counted.keys() <= {200, 429, 503}
        assert counted[200] >= 64 or connections < 1000, "those that come once there is room are answered"
        assert counted[429] + counted[503] > 0
        for answer in answers:
            bare = b"application/problem+json" not in answer.head
            assert answer.status == 200 or b"retry-after: " in answer.head or (answer.status == 503 and bare)
            assert answer.seconds <= 5.0 + 0.1
        assert service.idle(within_s=1.0)


def test_a_sleeping_engine_and_clients_that_hang_up_leave_nothing_behind() -> None:
    with live(delay_s=30.0) as service:
        service.http.post("/v1/score", json={"input": "warm", "timeout_ms": 100})
        for _ in range(3):
            began = time.monotonic()
            assert service.http.post("/v1/score", json={"input": "a", "timeout_ms": 200}).status_code == 504
            assert time.monotonic() - began <= 0.3
        body = b'{"input": "a", "timeout_ms": 20000}'
        clients = [service.connect() for _ in range(200)]
        for client in clients:
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        deadline = time.monotonic() + 10
        while service.metric("perimetry_inflight") < 200:
            assert time.monotonic() < deadline
        for client in clients:
            client.close()
        assert service.idle(within_s=5.0)
        assert service.http.get("/v1/events").json()["events"] == []


def test_a_signal_lets_what_runs_finish_and_takes_nothing_new() -> None:
    with live(delay_s=1.0) as service:
        answers: list[httpx.Response] = []
        asking = threading.Thread(
            target=lambda: answers.append(service.http.post("/v1/score", json={"input": "a"}, timeout=20))
        )
        asking.start()
        deadline = time.monotonic() + 10
        while service.metric("perimetry_inflight") < 1:
            assert time.monotonic() < deadline
        with service.http.stream("GET", "/v1/events", headers={"accept": "text/event-stream"}) as tail:
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(20) == 0
            assert tail.read() == b""
        asking.join(20)
        assert [answer.status_code for answer in answers] == [200]
        with pytest.raises(ConnectionRefusedError):
            service.connect()
