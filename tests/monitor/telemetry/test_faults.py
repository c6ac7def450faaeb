"""A collector that is down in every way: scores do not wait, losses are counted, and it goes on when the collector is back."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.monitor.store.faults import FaultProxy, Mode
from tests.monitor.telemetry.stand import Collector, collecting, dropped, told_desk

from perimetry.monitor.http.metrics import Metrics
from perimetry.monitor.telemetry.telemetry import Telemetry
from perimetry.monitor.telemetry.telemetry_config import TelemetryConfig

EXACT: tuple[Mode, ...] = ("refuse", "swallow", "reset")
"""Ways in which nothing gets through. In the others the collector may have what it could not say that it has."""
MODES: tuple[Mode, ...] = (*EXACT, "slow", "garbage", "half-open")


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    with collecting(tmp_path) as found:
        yield found


def names(collector: Collector) -> list[str]:
    """Traces of what came in, one a score."""
    return [record.trace_id.hex() for record in collector.records]


async def scores(client: httpx.AsyncClient, first: int, count: int) -> None:
    for n in range(first, first + count):
        headers = {"traceparent": f"00-{n + 1:032x}-{1:016x}-01"}
        assert (await client.post("/v1/score", json={"input": "odd"}, headers=headers)).status_code == 200


def test_what_arrives_is_whole_and_comes_with_the_headers_of_the_file(collector: Collector, tmp_path: Path) -> None:
    secret = tmp_path / "headers"
    secret.write_text("authorization: Bearer t0ken\n")
    metrics = Metrics()
    with FaultProxy(collector.path) as proxy:
        config = TelemetryConfig(endpoint=f"http://127.0.0.1:{proxy.port}", headers=secret, service_name="guard")
        telemetry = Telemetry(config, metrics)
        desk = told_desk(telemetry)
        desk.ask(lambda client: scores(client, 0, 3))
        telemetry.close()
    ((address, headers),) = collector.requests
    assert address == "/v1/logs"
    assert headers["authorization"] == "Bearer t0ken"
    assert names(collector) == [f"{n:032x}" for n in (1, 2, 3)]
    assert collector.scopes[0] == ("perimetry.monitor", "https://opentelemetry.io/schemas/1.41.0")
    assert collector.resources[0]["service.name"] == "guard"
    record = collector.records[0]
    assert record.event_name == "gen_ai.evaluation.result"
    assert {one.key: one.value.double_value for one in record.attributes}["perimetry.p_value"] == 1 / 1001
    assert dropped(metrics) == 0


@pytest.mark.parametrize("mode", MODES)
def test_scores_go_on_losses_are_counted_and_it_recovers_without_a_restart(collector: Collector, mode: Mode) -> None:
    metrics = Metrics()
    with FaultProxy(collector.path) as proxy:
        config = TelemetryConfig(
            endpoint=f"http://127.0.0.1:{proxy.port}", timeout_s=0.4, wait_s=0.05, queue=8, batch=4, close_s=5.0
        )
        telemetry = Telemetry(config, metrics)
        desk = told_desk(telemetry)

        async def use(client: httpx.AsyncClient) -> None:
            await scores(client, 0, 1)
            assert collector.has(lambda: len(collector.records) == 1)
            assert telemetry.flush(5.0)
            proxy.turn(mode)
            # The first batch hangs or fails for as long as its time; 30 scores are there before the queue of 8 can follow.
            await scores(client, 1, 30)
            assert telemetry.waiting <= 8
            telemetry.flush(5.0)
            assert dropped(metrics) > 0
            proxy.turn("through")
            for n in range(100, 160):
                await scores(client, n, 1)
                if collector.has(lambda n=n: f"{n + 1:032x}" in names(collector), 1.0):
                    break
            assert f"{n + 1:032x}" in names(collector)

        desk.ask(use)
        telemetry.close()
    made, arrived = desk.engine.calls, set(names(collector))
    assert len(desk.sink.put_events) == made
    assert telemetry.waiting == 0
    if mode in EXACT:
        assert len(arrived) + dropped(metrics) == made
    else:
        assert made - dropped(metrics) <= len(arrived) <= made


def test_an_outage_that_outlives_the_service_does_not_hold_it_up(collector: Collector) -> None:
    metrics = Metrics()
    with FaultProxy(collector.path) as proxy:
        proxy.turn("swallow")
        config = TelemetryConfig(endpoint=f"http://127.0.0.1:{proxy.port}", timeout_s=30.0, wait_s=0.0, close_s=0.1)
        telemetry = Telemetry(config, metrics)
        told_desk(telemetry).ask(lambda client: scores(client, 0, 5))
        telemetry.close()
        assert dropped(metrics) == 5
    assert collector.records == []
