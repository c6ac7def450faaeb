"""`perimetry serve` as a user starts it, with the mock in the place of a model unless a meter is given."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.worlds import child_environment

__all__ = ["Served", "served", "settings"]

MOCK = """
[serve.http]
port = 0
[serve.engine.worker]
tap = "mock"
mock_ms = 1.0
state = "{folder}/state"
[serve.engine.time]
respawn_first_s = 0.05
deaths = 2
[serve.store]
folder = "{folder}/events"
"""


def settings(folder: Path, more: str = "", text: str = MOCK) -> Path:
    """A file of settings in `folder`."""
    file = folder / "serve.toml"
    file.write_text(text.format(folder=folder) + more, encoding="utf-8")
    return file


class Served:
    """A service that runs."""

    def __init__(self, process: "subprocess.Popen[str]", address: str) -> None:
        self.process, self.address = process, address
        self.http = httpx.Client(base_url=address, timeout=30)
        self.said: list[dict[str, Any]] = []

    def hear(self) -> dict[str, Any]:
        """The next line of standard output."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the service ended"
        self.said.append(json.loads(line))
        return self.said[-1]

    def score(self, text: str, **more: Any) -> dict[str, Any]:
        answer = self.http.post("/v1/score", json={"input": text, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        """Its exit code."""
        self.process.send_signal(with_signal)
        return self.process.wait(30)


@contextmanager
def served(meter: Path, config: Path, *flags: str, errors: Path) -> Iterator[Served]:
    """A service that is ready. What it logs goes to the file `errors`."""
    command = [sys.executable, "-m", "perimetry", "serve", str(meter), "--config", str(config), "--json", *flags]
    with errors.open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=child_environment())
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, errors.read_text()
        found = Served(process, json.loads(line)["address"])
        with found.http:
            assert found.hear()["event"] == "ready"
            yield found
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
