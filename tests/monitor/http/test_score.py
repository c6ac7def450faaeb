"""Scores over HTTP: what is asked is what is answered, and no fault reads as safe."""

import asyncio
import json
import math
from collections.abc import Callable

import httpx
import pytest
from tests.monitor.fakes import ARTIFACT, N
from tests.monitor.http.desk import Desk, assert_problem

from perimetry.monitor.engine import Scored
from perimetry.monitor.problems import Problem


def test_a_text_is_scored_and_kept() -> None:
    desk = Desk()
    asked = {"input": "an odd text", "detail": "concepts", "metadata": {"team": "a"}, "request_id": "r-1"}
    answer = desk.post("/v1/score", json=asked, headers={"x-request-id": "gw.7"})
    found = answer.json()
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == "gw.7"
    assert found["flagged"] is True
    assert found["p_value"] == 1 / (N + 1)
    assert found["neg_log10_p"] == pytest.approx(math.log10(N + 1))
    assert found["fpr_interval"] == pytest.approx([0.0048, 0.017], abs=5e-5)
    assert found["artifact"] == ARTIFACT
    assert found["usage"] == {"tokens": 4, "scored_tokens": 3, "truncated": False}
    assert [token["text"] for token in found["tokens"]] == ["", "an", "odd", "text"]
    assert found["tokens"][0]["score"] is None
    assert found["concepts"][0]["contexts"] == ["a «clean» passage"]
    assert found["event"] == "queued"
    (event,) = desk.sink.put_events
    assert (event.request_id, event.text, event.metadata, event.adapter) == (
        "r-1",
        "an odd text",
        {"team": "a"},
        "score",
    )
    assert event.uuid == found["id"]


def test_what_was_not_asked_for_is_left_out() -> None:
    found = Desk().post("/v1/score", json={"input": "a text"}).json()
    assert found["flagged"] is False
    assert {"tokens", "concepts"} & found.keys() == set()


def test_a_chat_keeps_its_roles() -> None:
    desk = Desk()
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "an odd one"}]
    assert desk.post("/v1/score", json={"messages": messages}).json()["flagged"] is True
    assert desk.sink.put_events[0].text == "be brief\nan odd one"


def test_several_texts_are_judged_together_and_singly() -> None:
    desk = Desk()
    found = desk.post("/v1/score", json={"inputs": ["a", "odd", "b"], "alpha": 0.01}).json()
    assert [one["flagged"] for one in found["results"]] == [False, True, False]
    assert found["fdr"] == {"method": "BH", "q": 0.01, "rejected": [1]}
    assert len({one["id"] for one in found["results"]}) == 3
    assert len(desk.sink.put_events) == 3


def test_the_rate_decides_and_one_too_small_for_the_calibration_is_refused() -> None:
    desk = Desk()
    assert desk.post("/v1/score", json={"input": "odd", "alpha": 0.5}).json()["alpha"] == 0.5
    for alpha in (1 / (N + 1) * 0.99, 1e-6):
        found = assert_problem(desk.post("/v1/score", json={"input": "odd", "alpha": alpha}), "alpha-unreachable", 422)
        assert "calibration" in found["detail"]
    assert len(desk.sink.put_events) == 1


@pytest.mark.parametrize("name", ["tiny/llama", "tiny/llama@0123abcd"])
def test_the_model_may_be_named(name: str) -> None:
    assert Desk().post("/v1/score", json={"input": "a", "model": name}).status_code == 200


def test_another_model_is_refused() -> None:
    assert_problem(Desk().post("/v1/score", json={"input": "a", "model": "gpt-2"}), "unknown-model", 404)


CHANGES: dict[str, Callable[[Scored], Scored]] = {
    "score": lambda found: found._replace(score=math.nan),
    "infinite": lambda found: found._replace(score=math.inf),
    "p": lambda found: found._replace(p_value=math.nan),
    "p of nothing": lambda found: found._replace(p_value=0.0),
    "p above one": lambda found: found._replace(p_value=1.5),
    "token": lambda found: found._replace(tokens=(*found.tokens[:-1], found.tokens[-1]._replace(score=math.nan))),
    "concept": lambda found: found._replace(concepts=(found.concepts[0]._replace(energy=math.nan),)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_no_number_is_an_error_and_never_safe(name: str) -> None:
    desk = Desk()
    desk.engine.change = CHANGES[name]
    asked = {"input": "a text", "detail": "concepts"}
    assert "flagged" not in assert_problem(desk.post("/v1/score", json=asked), "non-finite", 500)
    assert desk.sink.put_events == []


def test_one_bad_row_costs_the_whole_batch() -> None:
    desk = Desk()
    desk.engine.change = lambda found: found._replace(p_value=math.nan) if found.score > 5 else found
    assert_problem(desk.post("/v1/score", json={"inputs": ["a", "odd"]}), "non-finite", 500)
    assert desk.sink.put_events == []


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("queue-full", 503),
        ("loading", 503),
        ("restarting", 503),
        ("out-of-memory", 503),
        ("draining", 503),
        ("deadline-unreachable", 503),
        ("deadline", 504),
        ("non-finite", 500),
        ("too-many-tokens", 422),
        ("nothing-to-score", 422),
        ("internal", 500),
    ],
)
def test_what_the_engine_refuses_is_refused(kind: str, status: int) -> None:
    desk = Desk()

    async def refuse() -> None:
        raise Problem(kind)

    desk.engine.before = refuse
    assert_problem(desk.post("/v1/score", json={"input": "a"}), kind, status)


def test_a_fault_of_the_engine_is_internal_and_says_nothing() -> None:
    desk = Desk()

    async def fail() -> None:
        raise RuntimeError("the secret prompt")

    desk.engine.before = fail
    answer = desk.post("/v1/score", json={"input": "a"})
    assert_problem(answer, "internal", 500)
    assert "secret" not in answer.text


def test_an_engine_that_sleeps_over_the_deadline_is_not_waited_for() -> None:
    desk = Desk()
    desk.engine.before = asyncio.Event().wait  # pyright: ignore[reportAttributeAccessIssue]
    answer = desk.post("/v1/score", json={"input": "a", "timeout_ms": 100})
    assert_problem(answer, "deadline", 504)
    assert answer.elapsed.total_seconds() < 0.2
    assert desk.engine.cancelled == 1
    assert desk.engine.running == 0


def test_a_store_that_fails_costs_the_event_and_not_the_score() -> None:
    desk = Desk()
    desk.sink.fault = OSError("disk")
    answer = desk.post("/v1/score", json={"input": "a"})
    assert answer.status_code == 200
    assert answer.json()["event"] == "dropped"


def test_a_text_larger_than_one_may_be_is_refused_before_the_engine() -> None:
    desk = Desk(text_bytes=100)
    assert desk.post("/v1/score", json={"input": "é" * 50}).status_code == 200
    assert_problem(desk.post("/v1/score", json={"input": "é" * 51}), "too-large", 413)
    assert desk.engine.calls == 1


def frames(text: str) -> list[tuple[str, dict[str, object]]]:
    found = []
    for block in text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields["event"], json.loads(fields["data"])))
    return found


def test_a_stream_tells_its_parts_and_then_the_same_score() -> None:
    desk = Desk()
    text = " ".join(["word"] * 40)

    async def use(client: httpx.AsyncClient) -> tuple[httpx.Response, httpx.Response]:
        stream = await client.post("/v1/score/stream", json={"input": text, "flush_tokens": 16})
        return stream, await client.post("/v1/score", json={"input": text, "detail": "tokens"})

    stream, whole = desk.ask(use)
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    names, data = zip(*frames(stream.text), strict=True)
    assert names == ("meta", "partial", "partial", "partial", "final")
    assert data[0]["api"] == "1"
    assert [(part["from"], part["to"]) for part in data[1:4]] == [(0, 16), (16, 32), (32, 41)]
    assert all("p_value" not in part for part in data[1:4])
    assert data[-1]["score"] == whole.json()["score"]
    assert data[-1]["tokens"] == whole.json()["tokens"]
    assert [event.adapter for event in desk.sink.put_events] == ["stream", "score"]


def test_a_stream_that_fails_on_the_way_ends_with_an_error_and_no_score() -> None:
    desk = Desk()

    async def fail() -> None:
        raise Problem("restarting")

    desk.engine.before = fail
    found = frames(desk.post("/v1/score/stream", json={"input": "a b"}).text)
    assert [name for name, _ in found] == ["meta", "partial", "error"]
    assert found[-1][1]["type"] == "urn:perimetry:problem:restarting"
    assert desk.sink.put_events == []


def test_a_stream_that_is_refused_at_once_is_a_problem_with_a_status() -> None:
    desk = Desk()
    desk.engine.change = lambda found: found._replace(score=math.nan)
    assert_problem(desk.post("/v1/score/stream", json={"input": "a"}), "non-finite", 500)


def test_a_stream_keeps_its_deadline_and_says_meanwhile_that_it_lives() -> None:
    desk = Desk(ping_s=0.05)
    desk.engine.before = asyncio.Event().wait  # pyright: ignore[reportAttributeAccessIssue]
    text = desk.post("/v1/score/stream", json={"input": "a", "timeout_ms": 200}).text
    assert ": ping\n\n" in text
    assert frames(text.replace(": ping\n\n", ""))[-1][1]["status"] == 504
    assert desk.engine.running == 0
