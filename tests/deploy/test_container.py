"""The service as its container runs it, as far as that goes without one: its variables, its files, its signal, its health check."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from tests.deploy.tools import DEPLOY, ROOT, image_environment
from tests.worlds import run_main

from perimetry.config import over


class Contained(NamedTuple):
    """The service, and where it was put."""

    process: "subprocess.Popen[str]"
    address: str
    token: str
    work: Path
    """The folder that it was started in; nothing may be written there."""
    data: Path
    """The folder that it may write to."""


def within(seconds: float, true: Callable[[], bool]) -> bool:
    """Whether something becomes true within this time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return true()


def settings(tmp_path: Path, tokens: Path) -> dict[str, Any]:
    """deploy/serve.toml with the folders of the container put elsewhere, a free port, and the tap of the tests."""
    given = tomllib.loads((DEPLOY / "serve.toml").read_text(encoding="utf-8"))["serve"]
    data = tmp_path / "data"
    worker = {"tap": "mock", "model": str(tmp_path), "state": str(data / "sentinel")}
    http = {"host": "127.0.0.1", "port": 0, "tokens": str(tokens)}
    return over(given, {"http": http, "engine": {"worker": worker}, "store": {"folder": str(data / "monitor")}})


def environment(tmp_path: Path, serve: dict[str, Any]) -> dict[str, str]:
    """What the image sets, and the tables as the chart gives them; no HOME, nothing of this process."""
    own = {name: value.replace("/tmp/", f"{tmp_path}/tmp/") for name, value in image_environment().items()}
    tables = {f"PERIMETRY_SERVE_{name.upper()}": json.dumps(value) for name, value in serve.items()}
    more = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path / "tmp"), "OMP_NUM_THREADS": "1"}
    return own | tables | more | {"PYTHONPATH": str(ROOT / "src")}


@pytest.fixture
def contained(tmp_path: Path) -> Iterator[Contained]:
    made = run_main("token", "probe", "--scopes", "score,read,metrics", "--json").json()
    tokens = tmp_path / "tokens"
    tokens.write_text(made["line"] + "\n", encoding="utf-8")
    for name in ("work", "data", "tmp", "meter"):
        (tmp_path / name).mkdir()
    (tmp_path / "work").chmod(0o555)
    process = subprocess.Popen(
        [sys.executable, "-m", "perimetry.cli", "serve", str(tmp_path / "meter"), "--json"],
        cwd=tmp_path / "work",
        env=environment(tmp_path, settings(tmp_path, tokens)),
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "log").open("w"),
        text=True,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, (tmp_path / "log").read_text()
        yield Contained(process, json.loads(first)["address"], made["token"], tmp_path / "work", tmp_path / "data")
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def health(found: Contained) -> int:
    return run_main("healthcheck", "--url", f"{found.address}/readyz").code


def test_it_starts_scores_drains_and_ends_with_0(contained: Contained) -> None:
    assert within(60, lambda: health(contained) == 0)
    answers: queue.Queue[httpx.Response] = queue.Queue()
    headers = {"authorization": f"Bearer {contained.token}"}
    with httpx.Client(base_url=contained.address, headers=headers, timeout=30) as client:
        assert httpx.get(f"{contained.address}/v1/capabilities").status_code == 401
        assert client.post("/v1/score", json={"input": "a prompt"}).status_code == 200

        def slow() -> None:
            answers.put(client.post("/v1/score", json={"input": "mock:sleep=1.5 takes its time"}))

        asking = threading.Thread(target=slow)
        asking.start()
        inflight = lambda: "perimetry_inflight 1.0" in client.get("/metrics").text  # noqa: E731
        assert within(10, inflight)
        contained.process.send_signal(signal.SIGTERM)
        assert within(1.0, lambda: health(contained) == 1)
        assert contained.process.poll() is None, "it went while a request was at work"
        asking.join()
    assert answers.get_nowait().status_code == 200
    assert contained.process.wait(30) == 0
    assert list(contained.work.iterdir()) == []
    written = {str(path.relative_to(contained.data)) for path in contained.data.rglob("*") if path.is_file()}
    assert "monitor/hash.key" in written
    assert any(name.startswith("sentinel/") for name in written)


def test_it_does_not_start_where_it_can_be_reached_without_tokens(tmp_path: Path) -> None:
    serve = settings(tmp_path, tmp_path / "none")
    serve["http"] |= {"host": "0.0.0.0"}
    del serve["http"]["tokens"]
    (tmp_path / "meter").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "perimetry.cli", "serve", str(tmp_path / "meter")],
        env=environment(tmp_path, serve),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "set tokens to a file of them" in done.stderr
