"""The guardrail of LiteLLM: recorded requests, and what is open or closed when there is no score."""

from typing import Any

import httpx
import pytest
from tests.monitor.http.desk import Desk, assert_problem

from perimetry.monitor.http.app import service_of
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.problems import Problem

PATH = "/beta/litellm_basic_guardrail_api"
RECORDED: dict[str, Any] = {
    "texts": ["what is an odd number?"],
    "request_data": {"user_api_key_hash": "88dc28", "user_api_key_alias": None, "user_api_key_user_id": "u"},
    "request_headers": {"user-agent": "x"},
    "litellm_version": "1.80.0",
    "images": None,
    "tools": None,
    "tool_calls": None,
    "structured_messages": [
        {"role": "developer", "content": "be brief"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "user", "content": [{"type": "text", "text": "what is an odd number?"}, {"type": "image_url"}]},
    ],
    "additional_provider_specific_params": {},
    "input_type": "request",
    "litellm_call_id": "c-1",
    "litellm_trace_id": None,
    "model": "gpt",
}
BLOCK = HttpConfig(mode="block")


def test_in_alert_mode_nothing_is_stopped_and_everything_is_kept() -> None:
    desk = Desk()
    assert desk.post(PATH, json=RECORDED).json() == {"action": "NONE"}
    (event,) = desk.sink.put_events
    assert event.text == "be brief\nwhat is an odd number?"
    assert (event.adapter, event.request_id, event.flagged) == ("litellm", "c-1", True)


def test_in_block_mode_the_reason_holds_numbers_and_no_text() -> None:
    found = Desk(BLOCK).post(PATH, json=RECORDED).json()
    reason = "outside what the model knows: the text, p = 0.000999, alpha = 0.01"
    assert found == {"action": "BLOCKED", "blocked_reason": reason}
    calm = {"texts": ["calm", "words"], "input_type": "request"}
    assert Desk(BLOCK).post(PATH, json=calm).json() == {"action": "NONE"}


def test_several_texts_are_judged_together() -> None:
    asked = {"texts": ["calm"] * 4 + ["odd"], "input_type": "request"}
    assert "1 of 5 texts" in Desk(BLOCK).post(PATH, json=asked).json()["blocked_reason"]
    asked = {"texts": ["calm"] * 14 + ["odd"], "input_type": "request"}
    assert Desk(BLOCK).post(PATH, json=asked).json()["action"] == "NONE", (
        "1 of 15 at p = 1/1001 is no discovery at 0.01"
    )


@pytest.mark.parametrize(
    "asked",
    [
        {"texts": ["odd"], "input_type": "response"},
        {"texts": [], "images": ["data:"], "input_type": "request"},
        {
            "texts": [" "],
            "input_type": "request",
            "structured_messages": [{"role": "user", "content": [{"type": "image_url"}]}],
        },
        {"input_type": "request"},
    ],
    ids=["response", "images", "images in messages", "nothing"],
)
def test_what_was_not_calibrated_is_not_judged_and_counted(asked: dict[str, Any]) -> None:
    desk = Desk(BLOCK)

    async def use(client: httpx.AsyncClient) -> tuple[httpx.Response, httpx.Response]:
        return await client.post(PATH, json=asked), await client.get("/metrics")

    answer, metrics = desk.ask(use)
    assert answer.json() == {"action": "NONE"}
    assert desk.engine.calls == 0
    assert f'perimetry_requests_total{{outcome="uncalibrated",route="{PATH}"}} 1.0' in metrics.text


@pytest.mark.parametrize("kind", ["restarting", "deadline", "non-finite", "too-many-tokens"])
@pytest.mark.parametrize(
    ("config", "opened"),
    [
        (HttpConfig(), True),
        (HttpConfig(on_error="closed"), False),
        (BLOCK, False),
        (HttpConfig(mode="block", on_error="open"), True),
    ],
    ids=["alert", "alert closed", "block", "block open"],
)
def test_without_a_score_it_is_open_or_closed_as_documented(kind: str, config: HttpConfig, opened: bool) -> None:
    desk = Desk(config)

    async def refuse() -> None:
        raise Problem(kind)

    desk.engine.before = refuse
    answer = desk.post(PATH, json=RECORDED)
    counted = service_of(desk.app).metrics.registry.get_sample_value(
        "perimetry_fail_open_total", {"adapter": "litellm"}
    )
    if opened:
        assert answer.json() == {"action": "NONE"}
        assert counted == 1
    else:
        assert_problem(answer, kind, Problem(kind).status)
        assert not counted


@pytest.mark.parametrize("asked", [{"texts": ["a"]}, {"texts": "a", "input_type": "request"}, []], ids=str)
def test_another_form_is_invalid(asked: object) -> None:
    assert_problem(Desk().post(PATH, json=asked), "invalid", 422)


def test_an_adapter_that_is_off_is_not_there() -> None:
    assert_problem(Desk(HttpConfig(litellm=False)).post(PATH, json=RECORDED), "not-found", 404)
