"""A client of the detector API that knows nothing but the published description: what it sends, and whether it can read every answer."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode
from tests.monitor.http.desk import Desk
from tests.monitor.http.live import Live, live

from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.problems import PROBLEMS, Problem

CONTRACT: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("detector_api.yaml").read_text())
CONTENTS, CHAT = "/api/v1/text/contents", "/api/v1/text/chat"
ID = {"detector-id": "perimetry"}
HEALTH = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def plain(schema: Any) -> Any:
    """A schema of OpenAPI 3.0 as JSON Schema: `nullable` is a type there."""
    if isinstance(schema, list):
        return [plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: plain(part) for name, part in schema.items() if name != "nullable"}
    return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") is True else made


SHARED = plain(CONTRACT["components"])


def fits(value: Any, schema: dict[str, Any]) -> None:
    """Raise where a value is not of the schema."""
    jsonschema_rs.validator_for(plain(schema) | {"components": SHARED}).validate(value)


def named(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def read(path: str, answer: httpx.Response) -> Any:
    """An answer as a client of the description reads it: by its status, and any refusal, documented or not, as an error."""
    described = CONTRACT["paths"][path]["post"]["responses"].get(str(answer.status_code))
    found = answer.json()
    fits(found, named("Error") if described is None else described["content"]["application/json"]["schema"])
    if answer.status_code != 200:
        assert found["code"] == answer.status_code
    return found


def asked(path: str, body: Any) -> Any:
    """A body that is sent: what the description allows."""
    fits(body, CONTRACT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"])
    return body


@pytest.fixture(scope="module")
def service() -> Iterator[Live]:
    with live() as found:
        yield found


@pytest.mark.parametrize("path", [CONTENTS, CHAT])
def test_whatever_the_description_allows_gets_an_answer_that_it_describes(service: Live, path: str) -> None:
    made = schemathesis.openapi.from_dict(CONTRACT)[path]["POST"].as_strategy(generation_mode=GenerationMode.POSITIVE)
    answered: Counter[int] = Counter()

    @given(case=made)
    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=HEALTH, database=None)
    def ask(case: schemathesis.Case) -> None:
        answer = service.http.post(path, json=asked(path, case.body), headers=ID)
        found = read(path, answer)
        answered[answer.status_code] += 1
        if answer.status_code == 200 and path == CONTENTS:
            assert len(found) == len(case.body["contents"])

    ask()
    assert set(answered) <= {200, 422}
    assert answered[200] > 5, answered


def test_contents_are_answered_in_order_with_places_in_their_own_text(service: Live) -> None:
    texts = ["calm words", "an 𒀀 odd thing, and another odd one", "calm"]
    body = asked(CONTENTS, {"contents": texts, "detector_params": {"threshold": 0.5}})
    found = read(CONTENTS, service.http.post(CONTENTS, json=body, headers=ID))
    assert [bool(part) for part in found] == [False, True, False]
    for one in found[1]:
        assert texts[1][one["start"] : one["end"]] == one["text"]
        assert 0.9 < one["score"] <= 1


CHATS: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "plain": ([{"role": "user", "content": "odd"}], True),
    "calm": ([{"role": "user", "content": "calm"}], False),
    "developer": (
        [{"role": "developer", "content": "be odd", "name": "ann"}, {"role": "user", "content": "yes"}],
        True,
    ),
    "parts": (
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": "odd"}, {"type": "image_url", "image_url": {"url": "data:"}}],
            }
        ],
        True,
    ),
    "tools": (
        [
            {"role": "user", "content": "look"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]},
            {"role": "tool", "content": "odd", "tool_call_id": "1"},
        ],
        True,
    ),
    "long": ([{"role": "user", "content": "calm"}, {"role": "assistant", "content": "yes"}] * 100, False),
}


@pytest.mark.parametrize("messages", CHATS.values(), ids=CHATS)
def test_a_chat_may_hold_whatever_a_chat_of_openai_holds(
    service: Live, messages: tuple[list[dict[str, Any]], bool]
) -> None:
    said, flagged = messages
    body = asked(CHAT, {"messages": said, "detector_params": {}, "tools": []})
    found = read(CHAT, service.http.post(CHAT, json=body))
    assert [one["detection_type"] for one in found] == ["perimetry"] * flagged


def test_a_chat_without_a_word_is_refused_and_not_passed_as_well(service: Live) -> None:
    body = asked(CHAT, {"messages": [{"role": "assistant", "content": None}]})
    answer = service.http.post(CHAT, json=body)
    assert answer.status_code == 422
    assert read(CHAT, answer)["code"] == 422


@pytest.mark.parametrize("kind", sorted(PROBLEMS))
@pytest.mark.parametrize("path", [CONTENTS, CHAT])
def test_every_refusal_is_an_error_that_a_client_can_read(path: str, kind: str) -> None:
    desk = Desk(HttpConfig(mode="block"))

    async def refuse() -> None:
        raise Problem(kind)

    desk.engine.before = refuse
    body = {"contents": ["a"]} if path == CONTENTS else {"messages": [{"role": "user", "content": "a"}]}
    answer = desk.post(path, json=asked(path, body), headers=ID)
    assert answer.status_code == PROBLEMS[kind][0]
    assert read(path, answer)["message"] == PROBLEMS[kind][1]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"json": {"contents": ["a"]}, "headers": {"detector-id": "another"}}, 404),
        ({"json": {"contents": ["a"]}}, 404),
        ({"json": {}, "headers": ID}, 422),
        ({"json": {"contents": ["a"] * 33}, "headers": ID}, 422),
        ({"json": {"contents": ["a" * 300_000]}, "headers": ID}, 413),
        ({"content": b"{", "headers": ID | {"content-type": "application/json"}}, 400),
        ({"content": b"{}", "headers": ID}, 415),
        ({"json": {"contents": ["a"]}, "headers": ID | {"host": "elsewhere.example"}}, 421),
    ],
    ids=["another", "none", "empty", "many", "long", "broken", "media", "host"],
)
def test_refusals_before_the_engine_are_errors_too(service: Live, sent: dict[str, Any], status: int) -> None:
    answer = service.http.post(CONTENTS, **sent)
    assert answer.status_code == status
    read(CONTENTS, answer)


def test_it_says_that_it_lives(service: Live) -> None:
    assert service.http.get("/health").status_code == 200


def test_the_differences_of_trustyai_are_understood(service: Live) -> None:
    body = {"contents": ["odd", "calm"], "detector_params": None}
    fits(body, named("TrustyContentAnalysisHttpRequest"))
    found = read(CONTENTS, service.http.post(CONTENTS, json=body, headers=ID))
    fits(found, {"type": "array", "items": {"type": "array", "items": named("TrustyContentAnalysisResponse")}})
    (one,) = found[0]
    assert one["metadata"]["group"] == "short"
    assert not {"evidence", "evidences"} & set(one)
    assert found[1] == []


def test_the_client_sees_what_is_wrong() -> None:
    right = {"start": 0, "end": 1, "text": "a", "detection": "d", "detection_type": "t", "score": 0.5}
    fits(right, named("ContentAnalysisResponse"))
    for wrong in (right | {"start": "0"}, right | {"evidence": [{}]}, {k: v for k, v in right.items() if k != "end"}):
        with pytest.raises(jsonschema_rs.ValidationError):
            fits(wrong, named("ContentAnalysisResponse"))
    for code in (99, 1000, "404"):
        with pytest.raises(jsonschema_rs.ValidationError):
            fits({"code": code, "message": ""}, named("Error"))
