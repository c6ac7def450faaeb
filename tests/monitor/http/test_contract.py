"""The models say what the contract says, and the committed description is the one that is served."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from tests.monitor.http.desk import Desk

from perimetry.monitor.http import schemas, views
from perimetry.monitor.http.openapi import COMMITTED, as_bytes
from perimetry.monitor.problems import PROBLEMS

CONTRACT = json.loads((Path(__file__).parent / "contract.json").read_text(encoding="utf-8"))["$defs"]
MODELS = {
    "Msg": schemas.Msg,
    "ScoreRequest": schemas.ScoreRequest,
    "StreamRequest": schemas.StreamRequest,
    "Token": schemas.Token,
    "Concept": schemas.Concept,
    "Artifact": schemas.Artifact,
    "Score": schemas.Score,
    "ScoreBatch": schemas.ScoreBatch,
    "Partial": schemas.Partial,
    "Capabilities": views.Capabilities,
    "Event": views.Event,
    "EventPage": views.EventList,
    "Drift": views.Drift,
    "Problem": views.ProblemBody,
}
REQUESTS = {"Msg", "ScoreRequest", "StreamRequest"}
_, OURS = models_json_schema([(model, "validation") for model in MODELS.values()])
WORDS = ("type", "enum", "const", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "pattern")
MORE = ("minItems", "maxItems", "maxProperties", "format", "default", "oneOf")


def follow(schema: Any, theirs: bool) -> dict[str, Any]:
    """The schema that a reference stands for."""
    if schema is True or schema is None:
        return {}
    reference = schema.get("$ref")
    if reference is None:
        return schema
    if not theirs:
        return OURS["$defs"][reference.rpartition("/")[2]]
    parts = reference.removeprefix("#/$defs/").split("/")
    found: Any = CONTRACT
    for part in parts:
        found = found[part]
    return follow(found, True)


def plain(schema: Any, theirs: bool) -> dict[str, Any]:
    """What a schema demands, spelled one way."""
    schema = follow(schema, theirs)
    if "anyOf" in schema:
        parts = [plain(part, theirs) for part in schema["anyOf"]]
        kinds = sorted(kind for part in parts for kind in part.get("type", []))
        return parts[0] | {"type": kinds}
    found = {word: schema[word] for word in (*WORDS, *MORE) if word in schema}
    if "const" in found:
        found["enum"] = [found.pop("const")]
    if "enum" in found:
        found.pop("type", None)
    elif "type" in found:
        found["type"] = sorted([found["type"]] if isinstance(found["type"], str) else found["type"])
    if "properties" in schema:
        found["properties"] = {name: plain(part, theirs) for name, part in schema["properties"].items()}
        found["required"] = sorted(schema.get("required", []))
    elif "required" in schema:
        found["required"] = sorted(schema["required"])
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            found[word] = plain(schema[word], theirs)
        elif schema.get(word) is False:
            found[word] = False
    return found


def holds(theirs: dict[str, Any], ours: dict[str, Any], where: str) -> list[str]:
    """What the contract says and the models do not."""
    wrong: list[str] = []
    for word, value in theirs.items():
        mine = ours.get(word)
        if word == "properties":
            for name, part in value.items():
                wrong += holds(part, (mine or {}).get(name, {"missing": True}), f"{where}.{name}")
        elif isinstance(value, dict):
            wrong += holds(value, mine or {}, f"{where}[]")
        elif word == "required":
            wrong += [f"{where}: {name} is not required" for name in value if name not in (mine or [])]
        elif mine != value:
            wrong.append(f"{where}: {word} is {mine}, not {value}")
    return wrong


@pytest.mark.parametrize("name", MODELS)
def test_each_model_says_what_the_contract_says(name: str) -> None:
    theirs = plain(CONTRACT[name], True)
    ours = plain({"$ref": f"#/$defs/{MODELS[name].__name__}"}, False)
    assert holds(theirs, ours, name) == []


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_requests_ask_no_more_than_the_contract(name: str) -> None:
    theirs = plain(CONTRACT[name], True)
    ours = plain({"$ref": f"#/$defs/{MODELS[name].__name__}"}, False)
    assert holds(ours, theirs, name) == []
    assert set(ours.get("required", [])) == set(theirs.get("required", []))


def test_the_comparison_sees_a_limit_that_differs() -> None:
    theirs = plain(CONTRACT["ScoreRequest"], True)
    ours = plain({"$ref": "#/$defs/ScoreRequest"}, False)
    ours["properties"]["inputs"]["maxItems"] = 31
    assert holds(theirs, ours, "x") == ["x.inputs: maxItems is 31, not 32"]


def test_the_committed_description_is_the_one_that_is_served() -> None:
    served = Desk().get("/openapi.json")
    assert served.headers["content-type"] == "application/json"
    if "PERIMETRY_REWRITE_CONTRACT" in os.environ:
        COMMITTED.write_bytes(served.content)
    assert served.content == COMMITTED.read_bytes(), (
        "the contract has changed; if that is meant, run this test with PERIMETRY_REWRITE_CONTRACT=1 and commit openapi.json"
    )


def test_every_address_documents_every_refusal_that_it_may_make() -> None:
    document = json.loads(COMMITTED.read_bytes())
    assert set(document["paths"]) == {
        "/v1/score", "/v1/score/stream", "/v1/capabilities", "/v1/events", "/v1/drift", "/v1/drift/acknowledge", "/healthz", "/health", "/readyz",
        "/metrics", "/api/v1/text/contents", "/api/v1/text/chat", "/beta/litellm_basic_guardrail_api",
    }  # fmt: skip
    for path, operations in document["paths"].items():
        for operation in operations.values():
            answers = {int(status) for status in operation["responses"]}
            assert {200, 403, 421, 431, 500} <= answers, path
            for status, answer in operation["responses"].items():
                if status != "200":
                    assert list(answer["content"]) == ["application/problem+json"], (path, status)
    scoring = {int(s) for s in document["paths"]["/v1/score"]["post"]["responses"]}
    assert scoring == {200} | {status for status, _ in PROBLEMS.values()} - {405, 502}


def test_the_description_is_bytes_that_do_not_depend_on_order() -> None:
    made = get_openapi(title="t", version="1", routes=[])
    assert as_bytes(made) == as_bytes(dict(reversed(made.items())))
