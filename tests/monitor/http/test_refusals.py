"""Every row of the table of problems, over HTTP; none repeats what came in."""

import asyncio
import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.exceptions import HTTPException
from tests.monitor.http.desk import Desk, assert_problem

from perimetry.monitor.http.bodies import deeper_than, parse
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.openapi import COMMITTED
from perimetry.monitor.http.refusals import refusal
from perimetry.monitor.problems import PROBLEMS, Problem

JSON = {"content-type": "application/json"}
MARK = "Zebra-7-Marker"
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b'{"input": NaN}',
        b'{"input": "\xff\xfe"}',
        b'{"input": "\\ud800"}',
        b'{"input": "a"} more',
        b"\xef\xbb\xbf{}",
        b'{"input": ' + b"9" * 5000 + b"}",
        DEEP,
        b'{"metadata": ' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}",
        b'{"input": "' + b'\\"' * 500_000,
        f'{{"input": "{MARK}"'.encode(),
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_not_strict_json_is_malformed(body: bytes) -> None:
    answer = Desk().post("/v1/score", content=body, headers=JSON)
    assert_problem(answer, "malformed", 400)
    assert answer.elapsed.total_seconds() < 1
    assert MARK not in answer.text


def test_depth_is_counted_outside_of_strings_only() -> None:
    assert parse(b'{"input": "' + b"[" * 100 + b'"}', 2) == {"input": "[" * 100}
    assert not deeper_than(b"[" * 32 + b"]" * 32, 32)
    assert deeper_than(b"[" * 33 + b"]" * 33, 32)
    assert not deeper_than(b'["\\"]]]["]', 1)
    assert deeper_than(b"{[{}]}", 2)


@pytest.mark.parametrize(
    ("body", "location", "kind"),
    [
        ({}, "body", "value_error"),
        ({"input": "a", "inputs": ["b"]}, "body", "value_error"),
        ({"input": None}, "body.input", "string_type"),
        ({"input": 5}, "body.input", "string_type"),
        ({"input": ""}, "body.input", "string_too_short"),
        ({"input": "a", MARK: 1}, "body", "extra_forbidden"),
        ({"input": "a", "timeout_ms": "500"}, "body.timeout_ms", "int_type"),
        ({"input": "a", "timeout_ms": 99}, "body.timeout_ms", "greater_than_equal"),
        ({"input": "a", "alpha": 0}, "body.alpha", "greater_than"),
        ({"input": "a", "alpha": 0.6}, "body.alpha", "less_than_equal"),
        ({"input": "a", "request_id": MARK + " "}, "body.request_id", "string_pattern_mismatch"),
        ({"input": "a", "metadata": {MARK: 5}}, "body.metadata", "string_type"),
        ({"input": "a", "metadata": {str(i): "" for i in range(9)}}, "body.metadata", "too_long"),
        ({"inputs": ["a"] * 33}, "body.inputs", "too_long"),
        ({"messages": [{"role": MARK, "content": "a"}]}, "body.messages.0.role", "literal_error"),
        ({"messages": [{"role": "user", "content": "a", MARK: 1}]}, "body.messages.0", "extra_forbidden"),
        ([MARK], "body", "model_attributes_type"),
    ],
    ids=str,
)
def test_another_form_is_invalid_and_says_where_without_saying_what(body: object, location: str, kind: str) -> None:
    answer = Desk().post("/v1/score", json=body)
    found = assert_problem(answer, "invalid", 422)
    assert {"location": location, "kind": kind} in found["errors"]
    assert MARK not in answer.text


def test_an_infinite_number_in_a_body_is_invalid() -> None:
    answer = Desk().post("/v1/score", content=b'{"input": "a", "alpha": 1e999}', headers=JSON)
    assert_problem(answer, "invalid", 422)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": ""},
        JSON | {"content-encoding": "gzip"},
        JSON | {"content-encoding": "identity"},
    ],
    ids=str,
)
def test_only_plain_json_is_read(headers: dict[str, str]) -> None:
    assert_problem(Desk().post("/v1/score", content=b'{"input": "a"}', headers=headers), "media-type", 415)


def test_json_with_its_charset_is_read() -> None:
    headers = {"content-type": 'Application/JSON; charset="UTF-8"'}
    assert Desk().post("/v1/score", content=b'{"input": "a"}', headers=headers).status_code == 200


def test_a_body_over_the_limit_is_too_large_declared_or_not() -> None:
    desk = Desk(body_bytes=1000)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    assert_problem(desk.post("/v1/score", content=b" " * 1001, headers=JSON), "too-large", 413)
    assert_problem(desk.post("/v1/score", content=pieces(), headers=JSON), "too-large", 413)
    fitting = b'{"input": "a"}'.ljust(1000)
    assert desk.post("/v1/score", content=fitting, headers=JSON).status_code == 200


def test_an_unknown_address_and_another_method_are_problems_too() -> None:
    desk = Desk()
    answer = desk.get(f"/{MARK}")
    assert_problem(answer, "not-found", 404)
    assert MARK not in answer.text
    for method, path, allowed in [
        ("GET", "/v1/score", "POST"),
        ("DELETE", "/v1/events", "GET"),
        ("OPTIONS", "/healthz", "GET"),
    ]:
        answer = desk.ask(lambda client, method=method, path=path: client.request(method, path))
        assert_problem(answer, "method", 405)
        assert answer.headers["allow"] == allowed
    assert_problem(desk.post("/v1/score/", json={"input": "a"}), "not-found", 404)


def test_too_many_and_too_long_headers() -> None:
    desk = Desk()
    assert_problem(desk.get("/healthz", headers=[(f"x-{i}", "a") for i in range(100)]), "headers", 431)
    assert_problem(desk.get("/healthz", headers={"x-long": MARK * 1200}), "headers", 431)
    assert_problem(desk.get("/healthz?" + "a" * 17_000), "headers", 431)


@pytest.mark.parametrize("kind", PROBLEMS)
def test_each_problem_has_its_headers_and_the_codes_that_the_detector_api_wants(kind: str) -> None:
    answer = refusal(Problem(kind), "n", "/v1/score")
    coded = json.loads(bytes(refusal(Problem(kind), "n", "/api/v1/text/contents").body))
    assert answer.status_code == PROBLEMS[kind][0]
    assert ("retry-after" in answer.headers) == (answer.status_code in (429, 503))
    assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)
    assert coded["code"] == answer.status_code
    assert coded["message"] == PROBLEMS[kind][1]


def test_every_problem_that_is_ours_is_documented_somewhere() -> None:
    text = COMMITTED.read_text(encoding="utf-8")
    described = " ".join(re.findall(r'"description": "Problem: ([^"]*)\."', text)).replace(",", "").split()
    assert set(PROBLEMS) - set(described) == {"method", "upstream"}


def test_a_problem_within_reading_a_body_stays_that_problem() -> None:
    """The framework wraps whatever comes of reading a form; the cause is what is told."""
    app = Desk().app

    @app.get("/wrapped")
    async def wrapped() -> None:
        raise HTTPException(400) from Problem("too-large")

    desk = Desk()
    desk.fresh = lambda: app  # type: ignore[method-assign]
    assert_problem(desk.get("/wrapped"), "too-large", 413)


def test_names_of_requests() -> None:
    desk = Desk()
    assert desk.get("/healthz", headers={"x-request-id": "a.b-C_1"}).headers["x-request-id"] == "a.b-C_1"
    for bad in ("", "a b", "x" * 65, "é".encode()):
        made = desk.get("/healthz", headers={"x-request-id": bad}).headers["x-request-id"]
        assert made != bad
        assert (len(made), made[14]) == (36, "7")


def test_every_answer_carries_the_headers_that_guard_browsers() -> None:
    desk = Desk()
    for answer in (desk.get("/healthz"), desk.get("/nothing"), desk.post("/v1/score", json={}), desk.get("/metrics")):
        headers = answer.headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert "require-trusted-types-for 'script'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_more_requests_than_there_is_room_for() -> None:
    desk = Desk(in_flight=2)

    async def use(client: httpx.AsyncClient) -> list[httpx.Response]:
        go = asyncio.Event()

        async def wait() -> None:
            await go.wait()

        desk.engine.before = wait
        first = [asyncio.create_task(client.post("/v1/score", json={"input": "a"})) for _ in range(2)]
        while desk.engine.running < 2:
            await asyncio.sleep(0)
        refused = await client.post("/v1/score", json={"input": "a"})
        probe = await client.get("/healthz")
        go.set()
        return [refused, probe, *await asyncio.gather(*first), await client.post("/v1/score", json={"input": "a"})]

    refused, *others = desk.ask(use)
    assert_problem(refused, "queue-full", 503)
    assert [answer.status_code for answer in others] == [200] * 4


def test_configuration_names_what_is_wrong() -> None:
    with pytest.raises(
        ValueError, match=r"host = '0\.0\.0\.0' can be reached from other machines and there are no tokens"
    ):
        HttpConfig(host="0.0.0.0")
    with pytest.raises(ValueError, match="lets any web page read this service"):
        HttpConfig(hosts=("*",))
    assert HttpConfig(host="::1").fails == "open"
    assert HttpConfig(mode="block").fails == "closed"
    assert HttpConfig(mode="block", on_error="open").fails == "open"
