"""A marker sent through every address and every error is in no problem, no log line and no metric."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.monitor.fakes import FakeEngine
from tests.monitor.http.desk import Desk

from perimetry.monitor.engine import Row, Scored, Some
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.problems import PROBLEMS, Problem

MARK = "Zq7-Marker-0451"
CHAT = [{"role": "user", "content": MARK}]
ID = {"detector-id": "perimetry"}
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/score", {"json": {"input": MARK, "metadata": {"k": MARK}}}),
    ("POST", "/v1/score", {"json": {"messages": CHAT}}),
    ("POST", "/v1/score", {"json": {"inputs": [MARK, MARK]}}),
    ("POST", "/v1/score", {"json": {"input": MARK, "model": MARK}}),
    (
        "POST",
        "/v1/score",
        {"json": {"input": MARK, MARK: MARK, "detail": MARK, "alpha": MARK, "request_id": MARK + "!"}},
    ),
    ("POST", "/v1/score", {"json": {"input": MARK, "metadata": {MARK: 5}}}),
    ("POST", "/v1/score", {"json": [MARK]}),
    ("POST", "/v1/score", {"content": f'{{"input": "{MARK}', "headers": {"content-type": "application/json"}}),
    ("POST", "/v1/score", {"content": MARK, "headers": {"content-type": f"text/{MARK}"}}),
    ("POST", "/v1/score", {"content": MARK, "headers": {"content-type": "application/json", "content-encoding": MARK}}),
    ("POST", "/v1/score", {"json": {"input": MARK}, "headers": {"host": MARK}}),
    ("POST", "/v1/score", {"json": {"input": MARK}, "headers": {"origin": f"http://{MARK}"}}),
    ("POST", "/v1/score", {"json": {"input": MARK}, "headers": {"sec-fetch-site": MARK}}),
    ("POST", "/v1/score", {"json": {"input": MARK}, "headers": {"x-request-id": MARK + " "}}),
    ("POST", "/v1/score", {"json": {"input": MARK * 30_000}}),
    ("POST", "/v1/score/stream", {"json": {"input": MARK}}),
    ("POST", "/v1/score/stream", {"json": {"input": MARK, "flush_tokens": MARK}}),
    ("POST", "/api/v1/text/contents", {"json": {"contents": [MARK]}, "headers": ID}),
    ("POST", "/api/v1/text/contents", {"json": {"contents": [MARK]}, "headers": {"detector-id": MARK}}),
    ("POST", "/api/v1/text/contents", {"json": {"contents": MARK}, "headers": ID}),
    ("POST", "/api/v1/text/chat", {"json": {"messages": CHAT}}),
    ("POST", "/beta/litellm_basic_guardrail_api", {"json": {"texts": [MARK], "input_type": "request"}}),
    ("POST", "/beta/litellm_basic_guardrail_api", {"json": {"texts": [MARK], "input_type": MARK}}),
    ("POST", "/session", {"data": {"token": MARK}}),
    (
        "POST",
        "/session",
        {"content": f"{MARK}=%ff&token={MARK}", "headers": {"content-type": "application/x-www-form-urlencoded"}},
    ),
    ("GET", f"/v1/events?group={MARK}", {}),
    ("GET", f"/v1/events?{MARK}={MARK}&since={MARK}&from={MARK}", {}),
    ("GET", "/v1/events", {"headers": {"accept": "text/event-stream", "last-event-id": MARK}}),
    ("GET", f"/{MARK}", {"headers": {MARK: MARK, "cookie": MARK, "authorization": MARK}}),
    ("DELETE", f"/v1/score?{MARK}", {}),
    (MARK, "/v1/score", {}),
]
BROKEN = [
    RuntimeError(MARK),
    ValueError(MARK),
    KeyError(MARK),
    TimeoutError(MARK),
    *(Problem(kind) for kind in PROBLEMS),
]


class Broken(FakeEngine):
    """Fails with what it was given, which may hold a prompt."""

    def __init__(self, fault: Exception) -> None:
        super().__init__()
        self.fault = fault

    async def score(self, rows: Any, deadline: float) -> Any:
        raise self.fault

    async def stream(self, row: Row, flush_tokens: int, deadline: float) -> AsyncIterator[Some | Scored]:
        async for part in super().stream(row, flush_tokens, deadline):
            raise self.fault
            yield part


async def everything(client: httpx.AsyncClient) -> list[str]:
    """Bodies of all refusals, and the metrics."""
    told = []
    for method, path, more in CALLS:
        answer = await client.request(method, path, **more)
        if answer.status_code >= 400:
            told.append(answer.text + str(answer.headers))
            assert answer.headers["content-type"] == "application/problem+json", (path, answer.text)
    told.append((await client.get("/metrics")).text)
    return told


def test_a_marker_through_every_address_is_in_no_refusal_log_or_metric(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    with caplog.at_level(logging.DEBUG):
        told = desk.ask(everything)
    assert len(told) > len(CALLS) / 2
    assert [piece for piece in told if MARK in piece] == []
    ours = [line for line in caplog.messages if not line.startswith("HTTP Request:")]
    assert [line for line in ours if MARK in line] == []
    assert any("POST /v1/score" in line for line in ours)


@pytest.mark.parametrize("fault", BROKEN, ids=repr)
def test_a_marker_in_a_fault_of_the_engine_goes_nowhere(fault: Exception, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(HttpConfig(mode="block"))
    desk.engine = Broken(fault)
    with caplog.at_level(logging.DEBUG):
        told = desk.ask(everything)
    assert [piece for piece in told if MARK in piece] == []
    assert [line for line in caplog.messages if MARK in line and not line.startswith("HTTP Request:")] == []
    assert all(record.exc_info is None for record in caplog.records)


def test_faults_of_the_store_and_of_drift_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    desk.sink.fault = RuntimeError(MARK)

    async def fail(*_: Any) -> Any:
        raise RuntimeError(MARK)

    desk.sink.page = desk.sink.tail = fail  # type: ignore[method-assign]

    async def use(client: httpx.AsyncClient) -> list[httpx.Response]:
        stream = {"accept": "text/event-stream"}
        return list(
            await asyncio.gather(
                client.post("/v1/score", json={"input": "a"}),
                client.get("/v1/events"),
                client.get("/v1/events", headers=stream),
            )
        )

    with caplog.at_level(logging.DEBUG):
        answers = desk.ask(use)
    assert [answer.status_code for answer in answers] == [200, 500, 500]
    assert MARK not in caplog.text
    assert not any(MARK in answer.text for answer in answers)
