"""The process that owns the model killed while every adapter waits for it: open or closed as documented, and each text that got through counted."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from tests.monitor.service import mock_config, run, running, until_up

from perimetry.monitor.http.adapters.litellm import ADDRESS
from perimetry.monitor.http.app import create_app, service_of
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.sinks import NoSink
from perimetry.monitor.supervisor import Supervisor

TEXT = "mock:sleep=30"
"""Holds the worker for as long as it lives."""
CHAT = {"messages": [{"role": "user", "content": TEXT}]}
ID = {"detector-id": "perimetry"}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "score": ("/v1/score", {"input": TEXT}),
    "contents": ("/api/v1/text/contents", {"contents": [TEXT]}),
    "chat": ("/api/v1/text/chat", CHAT),
    "litellm": (ADDRESS, {"texts": [TEXT], "input_type": "request"}),
    "proxy": ("/v1/completions", {"prompt": TEXT}),
    "proxy, fast model": ("/v1/chat/completions", CHAT),
}
CASES: list[tuple[dict[str, Any], bool]] = [
    ({"mode": "alert"}, True),
    ({"mode": "block"}, False),
    ({"mode": "alert", "on_error": "closed"}, False),
    ({"mode": "block", "on_error": "open"}, True),
]
"""How the service is set, and whether the adapters that may block let through what has no score."""


class Said(httpx.AsyncByteStream):
    """An answer of the model, which must be closed whether or not it is passed on."""

    def __init__(self) -> None:
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"said"

    async def aclose(self) -> None:
        self.closed = True


class Found(NamedTuple):
    """What came of it."""

    answers: dict[str, httpx.Response]
    opened: dict[str, float]
    """Texts let through without a score, as counted."""
    asked: list[str]
    """Addresses of the model behind the proxy that were asked."""
    said: list[Said]
    """What the model answered."""


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def killed(engine: Supervisor, config: HttpConfig) -> Found:
    """Every adapter asked at once; the worker is killed when all of them wait for it."""
    await until_up(engine)
    gone, asked, said = asyncio.Event(), list[str](), list[Said]()

    async def model(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if request.url.path == "/v1/completions":
            await gone.wait()
        said.append(Said())
        return httpx.Response(200, stream=said[-1])

    app = create_app(config, engine, NoSink(), transport=httpx.MockTransport(model))
    service = service_of(app)
    address, transport = "http://127.0.0.1:8765", httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=address) as client:

        def ask(way: str) -> Awaitable[httpx.Response]:
            path, body = WAYS[way]
            return asyncio.ensure_future(client.post(path, json=body, headers=ID))

        asking = {way: ask(way) for way in WAYS}
        await until(lambda: engine.room.rows == len(WAYS) and engine.gauges.queue_rows < len(WAYS))
        if config.mode == "alert":
            # The fast model has answered long before its text has a score.
            assert (await asking["proxy, fast model"]).headers["x-perimetry-status"] == "late"
        assert engine.gauges.pid is not None
        os.kill(engine.gauges.pid, signal.SIGKILL)
        await until(lambda: not engine.gauges.up)
        gone.set()
        answers = {way: await answer for way, answer in asking.items()}
        await until(lambda: engine.room.rows == 0)
        read = service.metrics.registry.get_sample_value
        opened = {
            name: read("perimetry_fail_open_total", {"adapter": name}) or 0.0
            for name in ("litellm", "proxy", "detector")
        }
    return Found(answers, opened, asked, said)


@pytest.mark.parametrize(("settings", "opens"), CASES, ids=str)
def test_every_adapter_is_open_or_closed_as_documented_and_what_got_through_is_counted(
    settings: dict[str, Any], opens: bool, tmp_path: Path
) -> None:
    async def work() -> None:
        async with running(mock_config(tmp_path)) as engine:
            config = HttpConfig.model_validate({"upstream": "http://model.example/v1", **settings})
            answers, opened, asked, said = await killed(engine, config)
            assert len(said) == len(asked) == (0 if config.mode == "block" and not opens else 2)
            assert all(one.closed for one in said)
            for way in ("score", "contents", "chat"):
                assert answers[way].status_code == 503, way
                assert int(answers[way].headers["retry-after"]) >= 1
            fast, slow, guard = answers["proxy, fast model"], answers["proxy"], answers["litellm"]
            if opens:
                assert guard.json() == {"action": "NONE"}
                assert (slow.content, slow.headers["x-perimetry-status"]) == (b"said", "error")
                assert fast.content == b"said"
                assert "x-perimetry-flagged" not in fast.headers
                assert opened == {"litellm": 1.0, "proxy": 2.0, "detector": 0.0}
            else:
                assert (guard.status_code, slow.status_code) == (503, 503)
                assert guard.json()["type"] == "urn:perimetry:problem:restarting"
                if settings["mode"] == "block":
                    assert fast.status_code == 503
                assert opened == {"litellm": 0.0, "proxy": float(fast.status_code == 200), "detector": 0.0}
            assert not any(TEXT in answer.text for answer in answers.values())
            await until_up(engine)
            assert len(await engine.score([], asyncio.get_running_loop().time() + 5)) == 0

    run(work)
