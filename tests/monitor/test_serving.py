"""The whole service, as one command: it listens, scores, keeps events, counts, and ends in order."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from tests.monitor.served import MOCK, served, settings
from tests.worlds import World, child_environment

from perimetry.shift.loading import load_meter


def test_one_command_scores_keeps_counts_and_drains(tmp_path: Path) -> None:
    errors = tmp_path / "errors.log"
    with served(tmp_path, settings(tmp_path), errors=errors) as service:
        assert service.said[0]["artifact"]["tap"] == "mock"
        assert service.http.get("/readyz").json()["status"] == "ready"
        found = service.score("hello there", metadata={"who": "a test"})
        assert found["event"] == "queued"
        batch = service.http.post("/v1/score", json={"inputs": ["one", "two", "mock:p=0.001"]}).json()
        assert batch["fdr"]["rejected"] == [2]
        assert service.http.post("/v1/score", json={"input": "mock:nan"}).status_code == 500
        text = service.http.get("/metrics").text
        assert "perimetry_worker_up 1.0" in text
        assert "perimetry_sentinel_ok 1.0" in text
        assert 'perimetry_tokens_total{kind="scored"}' in text
        assert service.stop() == 0
    rows = (
        sqlite3.connect(tmp_path / "events" / "events.sqlite")
        .execute("SELECT n_chars, flagged, outcome FROM event ORDER BY id")
        .fetchall()
    )
    assert rows == [(11, 0, "ok"), (3, 0, "ok"), (3, 0, "ok"), (12, 1, "ok")]
    logged = [json.loads(line) for line in errors.read_text().splitlines()]
    assert any("POST /v1/score 200 ok" in line["message"] for line in logged)
    assert "hello" not in errors.read_text()


def test_events_are_read_again_after_a_restart(tmp_path: Path) -> None:
    config = settings(tmp_path, 'ack = "commit"\n')
    with served(tmp_path, config, errors=tmp_path / "a.log") as service:
        assert service.score("first")["event"] == "committed"
        service.process.kill()
        service.process.wait()
    with served(tmp_path, config, errors=tmp_path / "b.log") as service:
        service.score("second")
        events = service.http.get("/v1/events").json()["events"]
        assert [event["n_chars"] for event in events] == [5, 6]
        assert [event["id"] for event in events] == [1, 2]
        assert service.http.get("/v1/events", params={"since": 1}).json()["events"] == events[1:]


def test_a_worker_that_dies_too_often_ends_the_service_with_an_error(tmp_path: Path) -> None:
    errors = tmp_path / "errors.log"
    with served(tmp_path, settings(tmp_path), "--no-events", errors=errors) as service:
        end = time.monotonic() + 120
        while service.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):  # the connection ends with the service
                service.http.post("/v1/score", json={"input": "mock:exit"})
            time.sleep(0.05)
        assert service.process.wait(30) == 2
    assert "nothing will be scored any more" in errors.read_text()
    assert not (tmp_path / "events").exists()


def test_scores_are_those_of_the_meter(world: World, tmp_path: Path) -> None:
    text = MOCK.replace('tap = "mock"\nmock_ms = 1.0\n', "threads = 1\n")
    prompts = ["the cat sat on the mat", "an old man went to the sea", "x" * 60]
    wanted = load_meter(world.meter).score(prompts, alpha=0.1, explain=False)
    with served(
        world.meter, settings(tmp_path, text=text), "--alpha", "0.1", errors=tmp_path / "errors.log"
    ) as service:
        assert service.http.get("/v1/capabilities").json()["alpha_default"] == 0.1
        answers = service.http.post("/v1/score", json={"inputs": prompts, "detail": "concepts"}).json()["results"]
        for answer, reading in zip(answers, wanted, strict=True):
            assert answer["score"] == pytest.approx(reading.score, rel=1e-4, abs=1e-5)
            assert answer["p_value"] == pytest.approx(reading.p_value, abs=0.02)
            assert answer["group"] == reading.group
            assert answer["tokens"]
            assert answer["artifact"]["sae_sha256"] == service.said[0]["artifact"]["sae_sha256"]
        assert service.stop(signal.SIGINT) == 0


FLOODS = ("a" * 100_000, "\u200b" * 33_000, "e" + "\u0301" * 49_000, "\U0001f600" * 25_000)
"""One character again and again, of zero width, combining, astral: each below the bound on bytes, far above that on tokens."""


def test_floods_are_refused_and_a_meter_that_is_gone_serves_on(world: World, tmp_path: Path) -> None:
    meter = tmp_path / "meter"
    shutil.copytree(world.meter, meter)
    text = MOCK.replace('tap = "mock"\nmock_ms = 1.0\n', "threads = 1\n")
    with served(meter, settings(tmp_path, text=text), "--alpha", "0.1", errors=tmp_path / "errors.log") as service:
        for flood in FLOODS:
            answer = service.http.post("/v1/score", json={"input": flood})
            assert (answer.status_code, answer.json()["type"]) == (422, "urn:perimetry:problem:too-many-tokens")
        shutil.rmtree(meter)
        before = service.score("the cat sat on the mat")
        assert service.http.get("/readyz").status_code == 200
        (worker,) = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
        os.kill(int(worker), signal.SIGKILL)
        refused = [service.http.post("/v1/score", json={"input": "the cat"}).status_code for _ in range(3)]
        assert set(refused) == {503}, "what cannot be loaded again is not ready, and scores nothing"
        assert service.process.wait(60) == 2
    assert before["score"] == pytest.approx(
        load_meter(world.meter).score(["the cat sat on the mat"])[0].score, rel=1e-4
    )


def refusal_of(*words: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "perimetry", "serve", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment(), timeout=60)
    return done.returncode, done.stderr


def test_what_cannot_be_served_says_why(tmp_path: Path) -> None:
    code, said = refusal_of(tmp_path / "none")
    assert (code, "no meter at" in said) == (2, True)
    code, said = refusal_of(tmp_path, "--host", "0.0.0.0")
    assert (code, "there are no tokens" in said) == (2, True)
    code, said = refusal_of(tmp_path, "--config", settings(tmp_path, "[serve.https]\nport = 1\n"))
    assert (code, "the nearest key is 'http'" in said) == (2, True)
    code, said = refusal_of(tmp_path, "--port", "0", "--no-events")
    assert code == 2
    assert "the model could not be loaded" in said


def test_a_second_service_on_the_same_store_is_refused(tmp_path: Path) -> None:
    config = settings(tmp_path)
    with served(tmp_path, config, errors=tmp_path / "errors.log"):
        code, said = refusal_of(tmp_path, "--config", config)
    assert code == 2
    assert "Locked" in said


def test_a_log_that_nobody_reads_stalls_nothing(tmp_path: Path) -> None:
    """The pipe of standard error is never read, and few lines may wait: requests go on, and what is lost is counted."""
    config = settings(tmp_path)
    config.write_text("serve.log_lines = 50\n" + config.read_text())
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "perimetry", "serve", str(tmp_path), "--config", str(config), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writing, text=True, env=child_environment())
    try:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        assert json.loads(process.stdout.readline())["event"] == "ready"
        with httpx.Client(base_url=address, timeout=30) as client:
            for _ in range(800):
                assert client.get("/nothing").status_code in (404, 429)
            while (answer := client.get("/metrics")).status_code == 429:
                time.sleep(float(answer.headers["retry-after"]))
            text = answer.text
        lost = [line for line in text.splitlines() if line.startswith('perimetry_telemetry_dropped_total{sink="log"}')]
        assert lost
        assert float(lost[0].rpartition(" ")[2]) > 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        os.close(reading)
        os.close(writing)
