"""A process that is killed at any moment loses nothing that it has called committed, and leaves a store that is whole."""

import os
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.monitor.store.makers import a_config, a_database, everything

from perimetry.monitor.store.integrity import damage

ROOT = Path(__file__).parents[3]
ROUNDS = 100


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """The process that forks writers; light, since it imports the store alone."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    command = [sys.executable, "-m", "tests.monitor.store.crash_child"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


class Lines:
    """Lines of a pipe, until a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._rest = descriptor, b""

    def next(self, until: float) -> str | None:
        """The next line, or None where there is none until then."""
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            data = os.read(self._descriptor, 65536)
            assert data, "the child has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


def _killed(child: subprocess.Popen[bytes], lines: Lines, folder: Path, draw: random.Random) -> set[str]:
    """One round: what was called committed until the kill. Every third is killed while it opens, the others at work."""
    assert child.stdin is not None
    child.stdin.write(f"{folder}\n".encode())
    child.stdin.flush()
    found = re.fullmatch(r"pid (\d+)", lines.next(time.monotonic() + 60) or "")
    assert found
    committed: set[str] = set()
    if draw.random() < 2 / 3:
        committed |= set((lines.next(time.monotonic() + 60) or "").split())
        assert committed, "it never came to write"
    moment = time.monotonic() + draw.uniform(0.0, 0.06)
    while (line := lines.next(moment)) is not None:
        committed |= set(line.split())
    os.kill(int(found[1]), signal.SIGKILL)
    while (line := lines.next(time.monotonic() + 60)) != "ended":
        committed |= set((line or "").split())
    return committed


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing(child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    assert child.stdout is not None
    lines, draw = Lines(child.stdout.fileno()), random.Random(9)
    config = a_config(tmp_path / "store")
    committed: set[str] = set()
    for turn in range(ROUNDS):
        committed |= _killed(child, lines, config.folder, draw)
        if turn % 10 == 9:
            assert damage(config.folder / "events.sqlite", full=True) is None
    database = a_database(config)
    stored = everything(database)
    names = [one.uuid for one in stored]
    database.close()
    assert database.notes == []
    assert not list(config.folder.glob("*damaged*"))
    assert len(committed) > 500
    assert not committed - set(names)
    assert len(names) == len(set(names))
    assert all(one.text and len(one.concepts) == 2 for one in stored if one.uuid in committed)
