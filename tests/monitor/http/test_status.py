"""Probes, what the service can do, metrics, and what runs beside the requests."""

import asyncio
import logging
import re
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.monitor.fakes import N
from tests.monitor.http.desk import Desk, assert_problem

from perimetry.monitor.engine import GroupFacts
from perimetry.monitor.http.app import service_of
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.metrics import Metrics
from perimetry.monitor.problems import Problem


def test_alive_and_ready() -> None:
    desk = Desk()
    assert desk.get("/healthz").json() == desk.get("/health").json() == {"status": "ok"}
    assert desk.get("/readyz").json() == {
        "status": "ready",
        "checks": {"worker": "ok", "sentinel": "ok", "serving": "ok"},
    }


def test_what_is_wrong_makes_it_not_ready_and_says_so() -> None:
    desk = Desk()
    desk.engine.state = {"worker": "ok", "sentinel": "scores differ"}
    found = assert_problem(desk.get("/readyz"), "loading", 503)
    assert found["checks"] == {"worker": "ok", "sentinel": "scores differ", "serving": "ok"}
    assert desk.get("/healthz").status_code == 200


def test_while_it_stops_nothing_new_is_taken() -> None:
    desk = Desk()

    async def use(client: httpx.AsyncClient) -> None:
        service_of(desk.app).drain()
        assert_problem(await client.post("/v1/score", json={"input": "a"}), "draining", 503)
        assert assert_problem(await client.get("/readyz"), "draining", 503)["checks"]["serving"] == "draining"
        assert (await client.get("/healthz")).status_code == 200

    desk.ask(use)
    assert desk.engine.calls == 0
    assert desk.engine.stopped


def test_a_model_that_cannot_be_loaded_ends_the_service() -> None:
    desk = Desk()
    desk.engine.start_fault = Problem("internal")

    async def use(client: httpx.AsyncClient) -> bool:
        await asyncio.wait_for(service_of(desk.app).failed.wait(), 1)
        return (await client.get("/healthz")).status_code == 200

    assert desk.ask(use)


def test_capabilities_hold_no_secret() -> None:
    answer = Desk(HttpConfig(mode="block", litellm=False)).get("/v1/capabilities")
    found = answer.json()
    assert (found["api"], found["mode"], found["on_error"], found["alpha_default"]) == ("1", "block", "closed", 0.01)
    assert found["adapters"] == {"detector": True, "litellm": False, "proxy": False}
    assert found["groups"][0] == {
        "name": "short",
        "n": N,
        "alpha_min": 1 / (N + 1),
        "threshold": 8.0,
        "fpr_interval": [0.0048, 0.017],
    }
    assert found["groups"][1]["threshold"] is None
    assert found["limits"]["body_bytes"] == 2 * 2**20
    assert "token" not in answer.text.replace("_tokens", "")


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items(), reverse=True))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_by_route_and_outcome_and_not_by_address() -> None:
    desk = Desk()

    async def use(client: httpx.AsyncClient) -> dict[tuple[str, tuple[str, ...]], float]:
        for body in ({"input": "a"}, {"input": "odd"}, {"input": ""}):
            await client.post("/v1/score", json=body)
        await client.get("/made/up")
        await client.request("MADEUP", "/v1/score")
        return samples((await client.get("/metrics")).text)

    found = desk.ask(use)
    assert found["perimetry_requests_total", ("/v1/score", "ok")] == 2
    assert found["perimetry_requests_total", ("/v1/score", "invalid")] == 1
    assert found["perimetry_requests_total", ("/v1/score", "method")] == 1
    assert found["perimetry_requests_total", ("other", "not-found")] == 1
    assert found["perimetry_scores_total", ("short", "false")] == 2
    assert found["perimetry_flagged_total", ("short",)] == 1
    assert found["perimetry_p_value_bucket", ("0.001", "short")] == 1
    assert found["perimetry_p_value_bucket", ("0.5", "short")] == 2
    assert found["perimetry_calibration_size", ("short",)] == N
    assert found["perimetry_inflight", ()] == 0
    assert found["perimetry_request_duration_seconds_count", ("/v1/score",)] == 4
    assert not any("/made/up" in label for _, labels in found for label in labels)


def test_metrics_have_the_names_of_the_contract() -> None:
    told = {family.name for family in text_string_to_metric_families(Metrics().text().decode())}
    names = {name for name in told if not name.endswith("_created")}
    stated = """requests request_duration_seconds queue_wait_seconds forward_seconds loop_lag_seconds batch_rows padding_ratio
    p_value inflight queue_rows queue_tokens event_queue store_bytes tokens flagged scores drift_statistic drift_effect
    drift_alarms cusum calibration_age_seconds calibration_size events_written events_dropped worker_up sentinel_ok
    worker_restarts fail_open telemetry_dropped device_memory_bytes build_info"""
    assert names == {f"perimetry_{name}" for name in stated.split()}


def test_a_group_that_the_engine_made_up_is_no_label() -> None:
    desk = Desk()
    desk.engine.change = lambda found: found._replace(group="a prompt")

    async def use(client: httpx.AsyncClient) -> str:
        await client.post("/v1/score", json={"input": "a"})
        return (await client.get("/metrics")).text

    text = desk.ask(use)
    assert "a prompt" not in text
    assert 'group="other"' in text


def test_a_late_loop_is_seen() -> None:
    desk = Desk()

    def lag(what: str) -> float:
        found = service_of(desk.app).metrics.registry.get_sample_value(f"perimetry_loop_lag_seconds_{what}")
        assert found is not None
        return found

    async def use(client: httpx.AsyncClient) -> None:
        await client.get("/healthz")
        while lag("count") == 0:  # the watching has begun
            await asyncio.sleep(0.01)
        before = lag("count")
        time.sleep(0.4)  # nothing else holds the loop up
        while lag("count") == before:
            await asyncio.sleep(0.01)

    desk.ask(use)
    assert lag("sum") >= 0.1


def test_logs_hold_route_and_status_and_faults_without_their_message(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()

    async def fail() -> None:
        raise ValueError("the secret prompt")

    desk.engine.before = fail
    with caplog.at_level(logging.INFO, logger="perimetry.monitor.http"):
        desk.post("/v1/score", json={"input": "the secret prompt"}, headers={"x-request-id": "r-9"})
    assert "fault ValueError of the engine: test_status.py" in caplog.text
    assert re.search(r"POST /v1/score 500 internal \d+\.\d ms r-9", caplog.text)
    assert "secret" not in caplog.text


def test_a_calibration_without_groups_refuses_nothing_beforehand() -> None:
    desk = Desk()
    desk.engine.groups = (GroupFacts("short", 10, 1 / 11, None, 0.0, 0.0),)
    desk.engine.change = lambda found: found._replace(n_calibration=10, p_value=0.5)
    assert_problem(desk.post("/v1/score", json={"input": "a"}), "alpha-unreachable", 422)
    assert desk.engine.calls == 0
    assert desk.post("/v1/score", json={"input": "a", "alpha": 0.1}).status_code == 200
