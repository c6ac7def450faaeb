"""What an event says: of whom, in which words, as whose child, and that no word of a prompt is in it."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.semconv.schemas import Schemas
from tests.monitor.fakes import ARTIFACT, N
from tests.monitor.http.desk import Desk
from tests.monitor.telemetry.stand import dropped, told_desk

from perimetry import __version__
from perimetry.errors import UsageError
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.metrics import Metrics
from perimetry.monitor.http.sinks import NewEvent
from perimetry.monitor.problems import PROBLEMS, Problem
from perimetry.monitor.telemetry.telemetry import Telemetry
from perimetry.monitor.telemetry.telemetry_config import TelemetryConfig

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
MARK = "Zq7-Marker-0451"
CHAT = {"messages": [{"role": "user", "content": f"odd {MARK}"}]}
ID = {"detector-id": "perimetry"}
CALLS: list[tuple[str, dict[str, Any], dict[str, str], int]] = [
    ("/v1/score", {"input": f"odd {MARK}"}, {}, 1),
    ("/v1/score", {"inputs": [MARK, f"odd {MARK}", "calm"], "detail": "concepts", "metadata": {MARK: MARK}}, {}, 3),
    ("/v1/score/stream", {"input": f"odd {MARK}"}, {}, 1),
    ("/api/v1/text/contents", {"contents": [MARK, "odd"]}, ID, 2),
    ("/api/v1/text/chat", CHAT, {}, 1),
    ("/beta/litellm_basic_guardrail_api", {"texts": [MARK], "input_type": "request"}, {}, 1),
    ("/v1/chat/completions", CHAT, {}, 1),
]
"""Address, body, headers, and how many scores that makes."""


class Heard:
    """A service whose events are kept in memory."""

    def __init__(self, **config: Any) -> None:
        self.metrics, self.exporter = Metrics(), InMemoryLogRecordExporter()
        self.telemetry = Telemetry(TelemetryConfig(wait_s=0.0), self.metrics, self.exporter)
        upstream = httpx.MockTransport(lambda _: httpx.Response(200, stream=httpx.ByteStream(b"{}")))
        config = {"upstream": "http://model.example/v1"} | config
        self.desk: Desk = told_desk(self.telemetry, HttpConfig.model_validate(config), upstream)

    def records(self) -> Sequence[ReadableLogRecord]:
        """All events; the service takes no more."""
        self.telemetry.close()
        assert dropped(self.metrics) == 0
        return self.exporter.get_finished_logs()


def attributes(record: ReadableLogRecord) -> dict[str, Any]:
    found = record.log_record.attributes
    assert found is not None
    return dict(found)


def test_a_flagged_text_is_an_event_in_the_words_of_the_conventions() -> None:
    heard = Heard()
    answer = heard.desk.post("/v1/score", json={"input": "an odd text"}, headers=PARENT).json()
    (record,) = heard.records()
    log, p = record.log_record, 1 / (N + 1)
    assert log.event_name == "gen_ai.evaluation.result"
    assert (f"{log.trace_id:032x}", f"{log.span_id:016x}", log.trace_flags) == (TRACE, SPAN, 1)
    assert attributes(record) == {
        "gen_ai.evaluation.name": "perimetry.outside",
        "gen_ai.evaluation.score.value": pytest.approx(-math.log10(p)),
        "gen_ai.evaluation.score.label": "outside",
        "gen_ai.evaluation.explanation": "a share of 0.000999 of clean prompts of the group short would score as high or higher; "
        "at most the false-alarm rate 0.01",
        "perimetry.p_value": p,
        "perimetry.alpha": 0.01,
        "perimetry.group": "short",
        "perimetry.artifact": ARTIFACT["calibration_sha256"],
    }
    assert attributes(record)["gen_ai.evaluation.score.value"] == answer["neg_log10_p"]
    (event,) = heard.desk.sink.put_events
    assert log.timestamp == pytest.approx(event.created.timestamp() * 1e9, abs=1000)
    scope = record.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version, scope.schema_url) == ("perimetry.monitor", __version__, Schemas.V1_41_0.value)
    assert record.resource.attributes["service.name"] == "perimetry"
    assert log.body is None


def test_the_names_are_those_of_the_conventions() -> None:
    heard = Heard()
    body = {"input": "calm", "metadata": {"gen_ai.response.id": "chatcmpl-7"}}
    heard.desk.post("/v1/score", json=body)
    known = {getattr(gen_ai_attributes, name) for name in dir(gen_ai_attributes) if name.startswith("GEN_AI_")}
    (record,) = heard.records()
    ours = {name for name in attributes(record) if not name.startswith("perimetry.")}
    assert ours <= known
    assert attributes(record)["gen_ai.response.id"] == "chatcmpl-7"
    assert error_attributes.ERROR_TYPE == "error.type"


def test_a_text_that_is_not_flagged_is_inside() -> None:
    heard = Heard()
    heard.desk.post("/v1/score", json={"input": "calm", "alpha": 0.25})
    (record,) = heard.records()
    found = attributes(record)
    assert found["gen_ai.evaluation.score.label"] == "inside"
    assert found["gen_ai.evaluation.explanation"].endswith("above the false-alarm rate 0.25")
    assert (found["perimetry.alpha"], found["perimetry.p_value"]) == (0.25, 0.5)


@pytest.mark.parametrize("mode", ["alert", "block"])
def test_every_way_in_makes_one_child_of_the_request_a_score_and_none_says_a_word_of_it(mode: str) -> None:
    heard, wanted = Heard(mode=mode), 0
    for path, body, headers, scores in CALLS:
        assert heard.desk.post(path, json=body, headers=headers | PARENT).status_code in (200, 403), path
        wanted += scores
    records = heard.records()
    assert len(records) == wanted == len(heard.desk.sink.put_events)
    for record in records:
        assert f"{record.log_record.span_id:016x}" == SPAN
        assert MARK not in record.to_json()


@pytest.mark.parametrize("kind", sorted(PROBLEMS))
def test_a_failure_is_an_event_with_its_kind(kind: str) -> None:
    heard = Heard()

    async def refuse() -> None:
        raise Problem(kind, MARK)

    heard.desk.engine.before = refuse
    for path in ("/v1/score", "/v1/score/stream"):
        heard.desk.post(path, json={"input": f"{MARK} {'a ' * 200}"}, headers=PARENT)
    records = heard.records()
    assert len(records) == 2
    for record in records:
        found = attributes(record)
        assert found == {"gen_ai.evaluation.name": "perimetry.outside", "perimetry.alpha": 0.01, "error.type": kind}
        assert f"{record.log_record.trace_id:032x}" == TRACE
        assert MARK not in record.to_json()


def test_what_was_never_to_be_scored_is_no_event() -> None:
    heard = Heard()
    for body in ({"input": ""}, {"input": "a", "model": "another"}, []):
        assert heard.desk.post("/v1/score", json=body).status_code in (404, 422)
    assert heard.desk.post("/v1/score", json={"input": "a", "alpha": 1e-6}).status_code == 422
    (record,) = heard.records()
    assert attributes(record)["error.type"] == "alpha-unreachable"


@pytest.mark.parametrize(
    "given", [None, "", "x", f"00-{TRACE}-{SPAN}", f"00-{'0' * 32}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", "é" * 55]
)
def test_what_is_no_parent_makes_an_orphan_and_not_a_fault(given: str | None) -> None:
    heard = Heard()
    headers = {} if given is None else {"traceparent": given.encode("latin-1")}
    answer = heard.desk.post("/v1/score", json={"input": "a"}, headers=headers)
    assert answer.status_code == 200
    (record,) = heard.records()
    assert (record.log_record.trace_id, record.log_record.span_id) == (0, 0)


@pytest.mark.parametrize("given", ["two words", "x" * 65, ""])
def test_what_is_no_name_of_an_answer_is_left_out(given: str) -> None:
    heard = Heard()
    heard.desk.post("/v1/score", json={"input": "a", "metadata": {"gen_ai.response.id": given}})
    assert "gen_ai.response.id" not in attributes(heard.records()[0])


def test_one_request_does_not_leave_its_parent_to_another() -> None:
    heard = Heard()

    async def use(client: httpx.AsyncClient) -> None:
        await client.post("/v1/score", json={"input": "a"}, headers=PARENT)
        await client.post("/v1/score", json={"input": "b"})

    heard.desk.ask(use)
    assert [bool(record.log_record.span_id) for record in heard.records()] == [True, False]


def test_a_listener_that_breaks_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def scored(self, event: NewEvent, alpha: float) -> None:
            raise RuntimeError(event.text)

        def failed(self, adapter: str, alpha: float, kind: str) -> None:
            raise RuntimeError(MARK)

    desk = told_desk(Broken())
    assert desk.post("/v1/score", json={"input": MARK}).status_code == 200
    assert len(desk.sink.put_events) == 1
    assert desk.post("/v1/score", json={"input": MARK, "alpha": 1e-6}).status_code == 422
    assert caplog.text.count("fault RuntimeError of a listener") == 2
    assert MARK not in caplog.text


def test_without_an_endpoint_nothing_is_made() -> None:
    metrics = Metrics()
    telemetry = Telemetry(TelemetryConfig(), metrics)
    desk = told_desk(telemetry)
    assert desk.post("/v1/score", json={"input": "a"}).status_code == 200
    assert desk.post("/v1/score", json={"input": "a", "alpha": 1e-6}).status_code == 422
    assert telemetry.waiting == 0
    assert telemetry.flush(0.0)
    telemetry.close()
    assert metrics.registry.get_sample_value("perimetry_telemetry_dropped_total", {"sink": "otlp"}) is None


def test_without_opentelemetry_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "perimetry.monitor.telemetry.recorder", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry._logs", None)
    with pytest.raises(UsageError, match=r"perimetry\[telemetry\]"):
        Telemetry(TelemetryConfig(endpoint="http://127.0.0.1:1"), Metrics())
