"""From prompts over HTTP, through a real worker and a real store, to what the service says of its traffic."""

import asyncio
from pathlib import Path

import httpx
from tests.monitor.drift.traffic import quick
from tests.monitor.service import mock_config, run

from perimetry.monitor.baseline import unpack_summary
from perimetry.monitor.drift.drift_service import DriftService
from perimetry.monitor.http.app import create_app
from perimetry.monitor.http.http_config import HttpConfig, Limits
from perimetry.monitor.http.metrics import Metrics
from perimetry.monitor.mock_tap import mock_score
from perimetry.monitor.sink import StoreSink
from perimetry.monitor.store.event_store import EventStore
from perimetry.monitor.store.store_config import StoreConfig
from perimetry.monitor.supervisor import Supervisor


async def until_ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(30):
        while (await client.get("/v1/drift")).status_code != 200:
            await asyncio.sleep(0.01)


async def talk(client: httpx.AsyncClient, drift: DriftService) -> None:
    async def put(texts: list[str], **more: object) -> dict[str, object]:
        for start in range(0, len(texts), 25):
            answer = await client.post("/v1/score", json={"inputs": texts[start : start + 25], **more})
            assert answer.status_code == 200, answer.text
        assert await asyncio.to_thread(drift.settled)
        return (await client.get("/v1/drift")).json()

    await until_ready(client)
    assert (await client.get("/v1/drift")).json()["reference_n"] == 999
    # The mock scores by the sum of the characters: these are spread evenly.
    spread = [f"mock:p=0.9 {chr(200 + 20 * i)}" for i in range(50)]
    said = await put(spread)
    assert said["state"] == "ok"
    assert (await put(["mock:p=0.9 same"] * 50, metadata={"synthetic": "a load test"}))["state"] == "ok"
    assert (await put(["mock:p=0.9 same"] * 50))["state"] == "watch"
    assert (await put(["mock:p=0.9 same"] * 50))["state"] == "alarm"
    said = await put(["mock:p=0.0001 x"] * 3)
    assert said["cusum"] == {"value": said["cusum"]["value"], "threshold": 9.5, "alarm": True}  # pyright: ignore[reportIndexIssue]
    said = (await client.post("/v1/drift/acknowledge")).json()
    assert (said["cusum"]["value"], said["state"]) == (0.0, "ok")
    metrics = (await client.get("/metrics")).text
    assert 'perimetry_drift_alarms_total{test="ks"} 1.0' in metrics
    assert 'perimetry_drift_alarms_total{test="cusum"} 1.0' in metrics
    assert "perimetry_cusum 0.0" in metrics


def test_from_a_prompt_to_an_alarm(tmp_path: Path) -> None:
    store = EventStore(StoreConfig(folder=tmp_path / "events")).open()
    metrics = Metrics()
    drift = DriftService(quick(), store, metrics)

    async def work() -> None:
        engine = Supervisor(Path("none"), mock_config(tmp_path))
        config = HttpConfig(limits=Limits(rate_per_s=1e6, burst=1_000_000))
        app = create_app(
            config,
            engine,
            StoreSink(store),
            drift,
            metrics=metrics,
            listeners=[drift],
            ready=lambda: drift.begin(engine.baseline, engine.artifact),
        )
        address = "http://127.0.0.1:8765"
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=address) as client,
        ):
            await talk(client, drift)

    try:
        run(work)
        assert drift.close()
        assert drift.faults == 0
        first = store.reader.page(limit=1).events[0].event
        assert first.summary is not None
        (score,) = unpack_summary(first.summary)
        assert abs(score - mock_score("mock:p=0.9 È")) < 1e-6
        assert [row["n"] for row in store.reader.drift_windows()] == [50, 50, 50]
    finally:
        drift.close()
        store.close()
