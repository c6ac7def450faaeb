"""A real LiteLLM proxy before our guardrail: what passes, what is stopped, and what becomes of a request when we are gone."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from tests.monitor.http.live import Live, live, within
from tests.monitor.peers.gateway import ANSWER, Gateway, environment, gateway
from tests.monitor.peers.setup_litellm import litellm_command

from perimetry.monitor.http.tokens import new_token

pytestmark = [pytest.mark.slow, pytest.mark.network]
MARK = "Zq7-Marker-0451"
REASON = "outside what the model knows: the text, p = 0.000999, alpha = 0.01"


class Stand(NamedTuple):
    """A proxy and the services that its guardrails ask."""

    gateway: Gateway
    alert: Live
    block: Live
    doomed: Live
    """Takes its time, and is killed."""


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("litellm")
    (token, hashed), tokens = new_token(), folder / "tokens"
    tokens.write_text(f"gateway score,read,metrics {hashed}")
    with ExitStack() as stack:
        alert = stack.enter_context(live())
        block = stack.enter_context(live(config={"mode": "block"}))
        guarded = stack.enter_context(live(config={"mode": "block", "tokens": str(tokens)}))
        doomed = stack.enter_context(live(config={"mode": "block"}, delay_s=20.0))
        guardrails = {
            "alert": {"api_base": alert.address},
            "block": {"api_base": block.address},
            "both": {"api_base": block.address, "mode": ["pre_call", "post_call"]},
            "with-key": {"api_base": guarded.address, "api_key": token},
            "without-key": {"api_base": guarded.address},
            "doomed": {"api_base": doomed.address},
            "doomed-open": {"api_base": doomed.address, "unreachable_fallback": "fail_open"},
        }
        yield Stand(stack.enter_context(gateway(folder, guardrails)), alert, block, doomed)


def last_event(service: Live) -> dict[str, object]:
    return service.http.get("/v1/events", params={"limit": 1000}).json()["events"][-1]


def passed(answer: httpx.Response) -> bool:
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"] == ANSWER


def test_in_alert_mode_what_is_flagged_passes_and_is_kept(stand: Stand) -> None:
    answer = stand.gateway.chat("alert", ("user", f"an odd {MARK}"))
    assert passed(answer)
    event = last_event(stand.alert)
    assert (event["adapter"], event["flagged"], event["n_chars"]) == ("litellm", True, len(f"an odd {MARK}"))
    assert event["request_id"] == answer.headers["x-litellm-call-id"]


@pytest.mark.parametrize("more", [{}, {"stream": True}], ids=str)
def test_in_block_mode_what_is_flagged_is_stopped_and_told_why_without_its_words(
    stand: Stand, more: dict[str, bool]
) -> None:
    answer = stand.gateway.chat("block", ("user", f"an odd {MARK}"), **more)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == REASON
    assert MARK not in answer.text
    assert ANSWER not in answer.text


def test_in_block_mode_what_is_not_flagged_passes(stand: Stand) -> None:
    assert passed(stand.gateway.chat("block", ("user", "calm words")))
    assert last_event(stand.block)["flagged"] is False


def test_a_chat_with_parts_and_images_is_scored_as_a_chat(stand: Stand) -> None:
    parts = [
        {"type": "text", "text": "what is"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "text", "text": "this odd thing?"},
    ]
    messages = [("system", "be brief"), ("user", "hello"), ("assistant", "yes?"), ("user", parts)]
    assert stand.gateway.chat("block", *messages).status_code == 400
    assert last_event(stand.block)["n_chars"] == len("be brief\nhello\nyes?\nwhat is\nthis odd thing?")


def test_tools_and_their_results_do_not_break_it(stand: Stand) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "nothing there"},
    ]
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    asked = {"model": "made", "messages": messages, "tools": [tool], "guardrails": ["block"]}
    assert passed(stand.gateway.http.post("/v1/chat/completions", json=asked))
    assert last_event(stand.block)["n_chars"] == len("look\nnothing there")


def test_a_plain_completion_is_scored_too(stand: Stand) -> None:
    asked = {"model": "made", "prompt": "an odd beginning", "guardrails": ["block"]}
    answer = stand.gateway.http.post("/v1/completions", json=asked)
    assert answer.status_code == 400
    assert REASON in answer.text


def test_answers_of_the_model_are_not_judged_and_counted(stand: Stand) -> None:
    name = r'perimetry_requests_total\{outcome="uncalibrated",route="/beta/litellm_basic_guardrail_api"\}'
    assert passed(stand.gateway.chat("both", ("user", "calm")))
    assert stand.block.metric(name) == 1


def test_a_token_is_wanted_and_taken(stand: Stand) -> None:
    assert passed(stand.gateway.chat("with-key", ("user", "calm")))
    assert stand.gateway.chat("with-key", ("user", "odd")).status_code == 400
    refused = stand.gateway.chat("without-key", ("user", f"calm {MARK}"))
    assert refused.status_code >= 500
    assert MARK not in refused.text


def test_what_was_under_way_and_what_comes_after_is_closed_or_open_as_set_when_we_are_killed(stand: Stand) -> None:
    answers: dict[str, httpx.Response] = {}

    def ask(guardrail: str) -> None:
        answers[guardrail] = stand.gateway.chat(guardrail, ("user", f"calm {MARK}"))

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("doomed", "doomed-open")]
    for thread in threads:
        thread.start()
    assert within(20, lambda: stand.doomed.metric("perimetry_inflight") == 2)
    stand.doomed.process.kill()
    for thread in threads:
        thread.join(60)
    for found in (answers, {name: stand.gateway.chat(name, ("user", f"calm {MARK}")) for name in answers}):
        assert found["doomed"].status_code >= 500
        assert ANSWER not in found["doomed"].text
        assert MARK not in found["doomed"].text
        assert passed(found["doomed-open"])


def test_nobody_else_was_asked(stand: Stand, tmp_path: Path) -> None:
    assert stand.gateway.asked_elsewhere() == ""
    python = litellm_command().with_name("python")
    code = "import socket; socket.create_connection(('192.0.2.1', 9))"
    done = subprocess.run([python, "-c", code], env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert "no network in this test" in done.stderr
    assert (tmp_path / "watched").read_text() == "192.0.2.1\n"


def test_a_second_set_up_finds_the_first() -> None:
    command = litellm_command()
    before = command.stat().st_mtime_ns
    assert litellm_command() == command
    assert command.stat().st_mtime_ns == before
