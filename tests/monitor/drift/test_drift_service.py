"""Drift beside a real store: fed, asked, restarted, damaged, told to forget, flooded."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.monitor.drift.traffic import ARTIFACT, NOON, OTHER, a_baseline, a_store, events, prompts, quick

from perimetry.monitor.drift.drift_config import DriftConfig
from perimetry.monitor.drift.drift_service import DriftService
from perimetry.monitor.http.metrics import Metrics
from perimetry.monitor.http.sinks import DriftSource, Listener, NewEvent
from perimetry.monitor.http.views import Drift
from perimetry.monitor.problems import Problem
from perimetry.monitor.store.event_store import EventStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    found = a_store(tmp_path).open()
    yield found
    found.close()


def made(store: EventStore | None, config: DriftConfig | None = None, **more: Any) -> DriftService:
    """A service that has begun; every value that it is asked for is judged first."""
    found = DriftService(config or quick(), store, Metrics(), lambda: NOON)
    found.begin(a_baseline(**more), ARTIFACT)
    return found


def feed(service: DriftService, some: list[NewEvent]) -> Drift:
    """Hand events in and wait until they are judged."""
    for event in some:
        service.scored(event, 0.01)
    assert service.settled()
    return now(service)


def now(service: DriftService) -> Drift:
    return Drift.model_validate(asyncio.run(service.current()))


def metric(service: DriftService, name: str, **labels: str) -> float | None:
    return service._metrics.registry.get_sample_value(f"perimetry_{name}", labels)


def test_it_is_what_the_http_layer_asks_for() -> None:
    service = DriftService(quick(), None, Metrics())
    assert isinstance(service, DriftSource)
    assert isinstance(service, Listener)
    service.failed("score", 0.01, "deadline")
    assert service.leads()
    assert service.close()
    with pytest.raises(Problem) as caught:
        asyncio.run(service.current())
    assert caught.value.kind == "loading"
    with pytest.raises(Problem):
        asyncio.run(service.acknowledge())
    service.begin(None, ARTIFACT)
    assert "off" in service.notes[0]


def test_windows_are_judged_counted_and_kept(store: EventStore) -> None:
    service = made(store)
    assert now(service).state == "warming" if service.settled() else False
    said = feed(service, events(prompts(0, 50, shift=2.0, p=0.9)))
    assert (said.state, said.reference_n) == ("watch", 400)
    assert metric(service, "drift_alarms_total", test="ks") is None
    said = feed(service, events(prompts(1, 50, shift=2.0, p=0.9)))
    assert said.state == "alarm"
    ks = said.tests[0]
    assert metric(service, "drift_statistic", test="ks") == pytest.approx(ks.statistic)
    assert metric(service, "drift_effect", test="ks") == pytest.approx(ks.effect)
    assert metric(service, "drift_effect", test="group_mix") is not None
    assert metric(service, "drift_alarms_total", test="ks") == 1
    assert metric(service, "drift_alarms_total", test="cusum") is None
    kept = store.reader.drift_windows()
    assert [(one["artifact_id"], one["n"], one["results"]["window"]) for one in kept] == [("c1", 50, 1), ("c1", 50, 0)]
    assert kept[0]["results"]["alarm"]
    assert kept[0]["results"]["tests"][0]["statistic"] == pytest.approx(ks.statistic)
    assert service.close()


def test_the_sum_is_shown_and_acknowledged(store: EventStore) -> None:
    service = made(store)
    said = feed(service, events(prompts(0, 3, p=1e-4)))
    assert (said.state, said.cusum.alarm, said.cusum.threshold) == ("alarm", True, 9.5)
    assert metric(service, "cusum") == pytest.approx(said.cusum.value)
    assert metric(service, "drift_alarms_total", test="cusum") == 1
    assert asyncio.run(service.acknowledge())
    assert (now(service).cusum.value, now(service).state) == (0.0, "warming")
    assert store.reader.recall("drift")["crossed"] is False
    assert metric(service, "cusum") == 0.0
    feed(service, events(prompts(1, 3, p=1e-4)))
    assert metric(service, "drift_alarms_total", test="cusum") == 2
    assert service.close()


def test_what_was_not_scored_or_is_synthetic_does_not_count(store: EventStore) -> None:
    service = made(store)
    bad = prompts(0, 60, p=1e-4)
    feed(service, events(bad, metadata={"synthetic": "load test"}))
    feed(service, events(bad, outcome="failed"))
    feed(service, events(bad, artifact=OTHER))
    assert (now(service).state, now(service).cusum.value) == ("warming", 0.0)
    assert feed(service, events(bad, metadata={"team": "search"})).cusum.alarm
    assert service.close()


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    some = prompts(3, 130, shift=0.5)
    with_break, without = a_store(tmp_path / "a").open(), a_store(tmp_path / "b").open()
    first = made(with_break)
    feed(first, events(some[:75]))
    assert first.close()
    assert with_break.close()
    again = a_store(tmp_path / "a").open()
    second = made(again)
    feed(second, events(some[75:]))
    whole = made(without)
    feed(whole, events(some))
    assert now(second) == now(whole)
    assert second.close()
    assert whole.close()
    assert again.reader.recall("drift") == without.reader.recall("drift")
    again.close()
    without.close()


def test_a_death_costs_fewer_than_a_hundred_prompts(store: EventStore) -> None:
    first = made(store, quick(window=10_000, persist_every=100))
    feed(first, events(prompts(4, 250)))
    second = made(store, quick(window=10_000))
    assert second.settled()
    assert store.reader.recall("drift")["prompts"] == 200
    assert second._watch is not None
    assert second._watch.prompts == 200
    first.close()
    second.close()


def test_another_artifact_begins_anew_and_the_same_does_not(store: EventStore) -> None:
    service = made(store)
    before = feed(service, events(prompts(5, 55, shift=2.0, p=0.01)))
    service.begin(a_baseline(), ARTIFACT)
    assert service.settled()
    assert now(service) == before
    service.begin(a_baseline(seed=1), OTHER)
    assert service.settled()
    assert (now(service).state, now(service).cusum.value) == ("warming", 0.0)
    feed(service, events(prompts(6, 10, p=0.01), artifact=OTHER))
    assert service.close()
    assert store.reader.recall("drift")["artifact"] == "c2"


@pytest.mark.parametrize("damage", ['{"version": 1}', '"words"', '{"artifact": "c1", "cusum": "x"}'])
def test_a_damaged_state_is_set_aside(store: EventStore, damage: str) -> None:
    asyncio.run(store.remember("drift", json.loads(damage)))
    service = made(store)
    assert feed(service, events(prompts(7, 50))).state in ("ok", "watch")
    assert "damaged" in service.notes[0]
    assert store.reader.recall(f"drift.damaged.{int(NOON * 1e6)}") == json.loads(damage)
    assert service.close()
    assert store.reader.recall("drift")["prompts"] == 50


def test_a_state_whose_results_are_no_words_of_the_contract_is_damaged(store: EventStore) -> None:
    first = made(store)
    feed(first, events(prompts(8, 50)))
    first.close()
    state = store.reader.recall("drift")
    state["tests"][0]["name"] = "tarot"
    asyncio.run(store.remember("drift", state))
    second = made(store)
    assert feed(second, []).state == "warming"
    assert "damaged" in second.notes[0]
    second.close()


def test_a_store_that_fails_costs_nothing_but_memory(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise RuntimeError("a fault")

    service = made(store)
    service.settled()
    monkeypatch.setattr("perimetry.monitor.drift.watch.judge_window", broken)
    feed(service, events(prompts(9, 50, p=0.9)))
    assert service.faults == 1
    monkeypatch.undo()
    store.close()
    assert feed(service, events(prompts(10, 50, p=0.9))).tests
    assert service.close()


def test_a_flood_is_left_out_and_counted_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread is held while it judges; handing in returns all the same, and what is too much is counted."""
    held, entered = threading.Event(), threading.Event()
    service = made(None, quick(queue=100))
    assert service.settled()
    original = service._take

    def slow(one: Any) -> None:
        entered.set()
        held.wait(30)
        original(one)

    monkeypatch.setattr(service, "_take", slow)
    some = events(prompts(11, 150))
    service.observe(some[0])
    assert entered.wait(10)
    for event in some[1:]:
        service.observe(event)
    assert service.dropped == 49
    assert metric(service, "telemetry_dropped_total", sink="drift") == 49
    held.set()
    assert service.settled()
    assert service._watch is not None
    assert service._watch.prompts == 101
    assert service.close()


def test_an_older_meter_says_what_is_off(store: EventStore) -> None:
    service = made(store, width=1)
    said = feed(service, events([one._replace(summary=(one.score,)) for one in prompts(12, 50)]))
    assert [test.name for test in said.tests] == ["ks", "group_mix"]
    assert service.notes == ("drift compares no summaries: an older meter",)
    assert service.close()


def test_a_key_that_holds_no_json_is_damage(store: EventStore) -> None:
    """SQLite refuses such a value; a hand that edits the file need not."""
    asyncio.run(store.remember("drift", {"artifact": "c1"}))
    with store._database.writer.connect() as connection:
        connection.execute(text("PRAGMA ignore_check_constraints = ON"))
        connection.execute(text("UPDATE meta SET value = '{' WHERE key = 'drift'"))
        connection.commit()
    service = made(store)
    assert feed(service, []).state == "warming"
    assert "damaged" in service.notes[0]
    assert service.close()


def test_torch_stays_out() -> None:
    code = (
        "import sys; from perimetry.monitor.drift import drift_service; "
        "print(sorted({'torch', 'transformers', 'scipy.stats', 'perimetry.shift'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
