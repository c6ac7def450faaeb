"""The proxy to a model: what passes untouched, what is said of it, and what never reaches the model."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.monitor.fakes import FakeDrift
from tests.monitor.http.desk import Desk, assert_problem

from perimetry.monitor.http.app import create_app, service_of
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.tokens import new_token
from perimetry.monitor.problems import Problem

PATH = "/v1/chat/completions"
CALM: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "calm"}],
    "stream": True,
    "x": {"y": [1]},
}
ODD = CALM | {"messages": [{"role": "user", "content": "odd"}]}
BODY = b'data: {"choices": []}\n\ndata: [DONE]\n\n'


class Pieces(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in (BODY[:10], BODY[10:]):
            yield piece


class Upstream:
    """A model behind the proxy that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.before: Callable[[], Any] | None = None
        self.answer = lambda: httpx.Response(
            202, headers={"content-type": "text/event-stream", "x-model": "m", "connection": "close"}, stream=Pieces()
        )

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.asked.append(request)
        if self.before is not None:
            await self.before()
        return self.answer()


def behind(upstream: Upstream, **config: Any) -> Desk:
    desk = Desk(HttpConfig.model_validate({"upstream": "http://model.example:9/v1"} | config))

    def fresh() -> FastAPI:
        transport = httpx.MockTransport(upstream)
        return create_app(desk.config, desk.engine, desk.sink, FakeDrift(), transport=transport)

    desk.fresh = fresh  # type: ignore[method-assign]
    return desk


def test_a_fault_of_the_engine_is_open_or_closed_too() -> None:
    async def fail() -> None:
        raise RuntimeError("the secret prompt")

    for config, status in (({}, 202), ({"mode": "block"}, 500), ({"mode": "block", "on_error": "open"}, 202)):
        desk = behind(Upstream(), **config)
        desk.engine.before = fail
        assert desk.post(PATH, json=CALM).status_code == status
        assert opened(desk) == float(status == 202)


def refusing(desk: Desk, kind: str) -> None:
    async def refuse() -> None:
        raise Problem(kind)

    desk.engine.before = refuse


def opened(desk: Desk) -> float:
    return (
        service_of(desk.app).metrics.registry.get_sample_value("perimetry_fail_open_total", {"adapter": "proxy"}) or 0.0
    )


def test_in_alert_mode_everything_passes_untouched_with_a_verdict() -> None:
    upstream = Upstream()
    desk = behind(upstream)
    sent = json.dumps(ODD).encode() + b" "
    headers = {
        "content-type": "application/json",
        "authorization": "Bearer theirs",
        "x-perimetry-key": "ours",
        "cookie": "a=b",
    }
    answer = desk.post(PATH, content=sent, headers=headers)
    assert (answer.status_code, answer.content, answer.headers["x-model"]) == (202, BODY, "m")
    assert answer.headers["content-type"] == "text/event-stream"
    (asked,) = upstream.asked
    assert str(asked.url) == "http://model.example:9/v1/chat/completions"
    assert asked.content == sent
    assert asked.headers["authorization"] == "Bearer theirs"
    assert {"x-perimetry-key", "cookie"} & set(asked.headers) == set()
    assert asked.headers["host"] == "model.example:9"
    (event,) = desk.sink.put_events
    told = {name: answer.headers[f"x-perimetry-{name}"] for name in ("status", "id", "p", "flagged")}
    assert told == {"status": "scored", "id": event.uuid, "p": "0.000999001", "flagged": "true"}


def test_completions_are_scored_text_by_text() -> None:
    upstream = Upstream()
    desk = behind(upstream)
    answer = desk.post("/v1/completions", json={"prompt": ["calm", "odd"]})
    assert answer.headers["x-perimetry-flagged"] == "true"
    assert [event.text for event in desk.sink.put_events] == ["calm", "odd"]
    assert upstream.asked[0].url.path == "/v1/completions"


def test_in_block_mode_what_is_flagged_never_reaches_the_model() -> None:
    upstream = Upstream()
    desk = behind(upstream, mode="block")
    answer = desk.post(PATH, json=ODD)
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert error["code"] == "outside_understanding"
    assert error["message"] == "outside what the model knows: p = 0.000999001, alpha = 0.01"
    assert upstream.asked == []
    assert desk.post(PATH, json=CALM).content == BODY


def test_a_model_that_is_faster_than_the_score_is_not_held_up_and_the_event_is_kept() -> None:
    upstream = Upstream()
    desk = behind(upstream)

    async def use(client: httpx.AsyncClient) -> httpx.Response:
        go = asyncio.Event()

        async def wait() -> None:
            await go.wait()

        desk.engine.before = wait
        answer = await client.post(PATH, json=ODD)
        assert desk.sink.put_events == []
        go.set()
        while not desk.sink.put_events:
            await asyncio.sleep(0)
        return answer

    answer = desk.ask(use)
    assert answer.content == BODY
    assert answer.headers["x-perimetry-status"] == "late"
    assert "x-perimetry-p" not in answer.headers


@pytest.mark.parametrize(
    "body", [CALM, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, {"prompt": [1, 2]}]
)
@pytest.mark.parametrize(
    ("config", "through"),
    [
        ({}, True),
        ({"on_error": "closed"}, False),
        ({"mode": "block"}, False),
        ({"mode": "block", "on_error": "open"}, True),
    ],
    ids=str,
)
def test_without_a_score_it_is_open_or_closed_as_documented(body: Any, config: dict[str, Any], through: bool) -> None:
    desk = behind(Upstream(), **config)
    refusing(desk, "nothing-to-score")
    answer = desk.post(PATH, json=body)
    if through:
        assert (answer.content, answer.headers["x-perimetry-status"]) == (BODY, "error")
        assert "x-perimetry-flagged" not in answer.headers
    else:
        assert_problem(answer, "nothing-to-score", 422)
    assert opened(desk) == float(through)


@pytest.mark.parametrize("mode", ["alert", "block"])
def test_a_model_that_does_not_answer_is_a_bad_gateway(mode: str) -> None:
    upstream = Upstream()

    async def refuse() -> None:
        raise httpx.ConnectError("no route to the secret host")

    upstream.before = refuse
    answer = behind(upstream, mode=mode).post(PATH, json=CALM)
    assert_problem(answer, "upstream", 502)
    assert "secret" not in answer.text


def test_what_the_model_leaves_with_one_client_does_not_reach_another() -> None:
    upstream = Upstream()
    upstream.answer = lambda: httpx.Response(200, headers={"set-cookie": "a=secret; Path=/"}, stream=Pieces())
    desk = behind(upstream)

    async def use(client: httpx.AsyncClient) -> None:
        assert (await client.post(PATH, json=CALM)).headers["set-cookie"] == "a=secret; Path=/"
        client.cookies.clear()
        await client.post(PATH, json=CALM, headers={"accept-encoding": "br"})

    desk.ask(use)
    assert [request.headers.get("cookie") for request in upstream.asked] == [None, None]
    assert upstream.asked[1].headers["accept-encoding"] == "br"


def test_redirects_are_not_followed() -> None:
    upstream = Upstream()
    upstream.answer = lambda: httpx.Response(302, headers={"location": "http://elsewhere.example/"}, stream=Pieces())
    assert behind(upstream).post(PATH, json=CALM).status_code == 302
    assert len(upstream.asked) == 1


def test_our_token_is_not_the_models(tmp_path: Any) -> None:
    (token, hashed), path = new_token(), tmp_path / "tokens"
    path.write_text(f"me score {hashed}")
    upstream = Upstream()
    desk = behind(upstream, tokens=path)
    for headers in ({"authorization": f"Bearer {token}"}, {"x-api-key": token}):
        assert_problem(desk.post(PATH, json=CALM, headers=headers), "unauthorized", 401)
    assert desk.post(PATH, json=CALM, headers={"x-perimetry-key": token}).status_code == 202
    assert token not in str(upstream.asked[0].headers)


def test_without_an_upstream_there_is_no_proxy_and_an_upstream_is_an_address() -> None:
    assert_problem(Desk().post(PATH, json=CALM), "not-found", 404)
    for bad in ("model.example", "file:///x", "http://", "http://user@host/", "http://host/?a=b", "http://["):
        with pytest.raises(ValueError, match="upstream is no address"):
            HttpConfig(upstream=bad)
