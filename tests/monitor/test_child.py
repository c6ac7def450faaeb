"""The worker process: how it starts, refuses, splits what is too large, and ends with whoever started it."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.monitor.service import mock_config, refused, run, running, score, until_up

from perimetry.monitor.child import EXIT_FAULT, answer
from perimetry.monitor.frames import Decoder, Frame, encode
from perimetry.monitor.mock_tap import MockTap
from perimetry.monitor.supervisor import Supervisor
from perimetry.monitor.tap import AbstractTap, Facts, Probe
from perimetry.monitor.wire import Answer, Asked, answers_of, batch_frame


class Small(AbstractTap):
    """Holds only so many rows at once."""

    def __init__(self, most: int) -> None:
        self.most, self.sizes = most, list[int]()

    @property
    def facts(self) -> Facts:
        return MockTap(0.0, 0.01).facts

    def run(self, rows: Sequence[Asked], cancelled: Callable[[], bool]) -> list[Answer]:
        self.sizes.append(len(rows))
        if len(rows) > self.most:
            raise MemoryError
        return [Answer(n=row.words) for row in rows]

    def probe(self) -> list[Probe]:
        return []


@pytest.mark.parametrize(
    ("rows", "most", "sizes", "failed"),
    [(8, 8, [8], 0), (7, 4, [7, 3, 4], 0), (7, 3, [7, 3, 4], 4), (8, 1, [8, 4, 4], 8), (1, 0, [1], 1)],
)
def test_a_batch_is_halved_once(rows: int, most: int, sizes: list[int], failed: int) -> None:
    tap = Small(most)
    found = answer(tap, [Asked([1], [True], 1 + i) for i in range(rows)], lambda: False)
    assert tap.sizes == sizes
    assert [a.problem for a in found].count("out-of-memory") == failed
    assert all(a.n == 1 + i for i, a in enumerate(found) if a.problem is None)


class Line:
    """A worker as a test talks to it."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(30)
        command = [sys.executable, "-P", "-m", "perimetry.monitor.child", str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE)
        theirs.close()
        self.decoder = Decoder()

    def open(self, state: Path) -> None:
        config = mock_config(state).model_dump(mode="json")
        self.ours.sendall(encode({"kind": "open", "meter": "none", "config": config}))
        assert self.next().kind == "ready"

    def next(self) -> Frame:
        while True:
            data = self.ours.recv(2**16)
            assert data, "the worker is gone"
            for frame in self.decoder.feed(data):
                return frame

    def ended(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=30)
        self.ours.close()
        return self.process.returncode, err.decode()


def test_it_goes_with_whoever_started_it_even_while_it_works(tmp_path: Path) -> None:
    line = Line()
    line.open(tmp_path)
    row = Asked([ord(c) for c in "mock:sleep=60"], [True] * 13, 1)
    line.ours.sendall(batch_frame(1, [row]))
    line.ours.close()
    assert line.ended()[0] == 0


def test_signals_for_the_service_do_not_end_it_and_stop_does(tmp_path: Path) -> None:
    line = Line()
    line.open(tmp_path)
    for number in (signal.SIGINT, signal.SIGTERM):
        line.process.send_signal(number)
    line.ours.sendall(batch_frame(3, [Asked([97], [True], 1)]))
    frame = line.next()
    assert (frame.header["batch"], answers_of(frame)[0].score) == (3, 0.097)
    line.ours.sendall(encode({"kind": "stop"}))
    assert line.ended() == (0, "")


def test_a_batch_that_was_given_up_beforehand_is_not_run(tmp_path: Path) -> None:
    line = Line()
    line.open(tmp_path)
    line.ours.sendall(encode({"kind": "abort", "batch": 4}))
    line.ours.sendall(batch_frame(4, [Asked([97], [True], 1)]))
    assert answers_of(line.next()) == []
    line.ours.sendall(encode({"kind": "stop"}))
    line.ended()


def test_a_fault_tells_type_and_place_and_nothing_that_was_read(tmp_path: Path) -> None:
    line = Line()
    line.open(tmp_path)
    text = "mock:raise MARKER"
    line.ours.sendall(batch_frame(1, [Asked([ord(c) for c in text], [True] * len(text), 1)]))
    code, err = line.ended()
    assert code == EXIT_FAULT
    assert "the worker ends after RuntimeError" in err
    assert "MARKER" not in err


def test_a_meter_that_is_none_is_refused_at_the_start(tmp_path: Path) -> None:
    async def work() -> None:
        config = mock_config(tmp_path, worker={"tap": "meter", "threads": 1})
        engine = Supervisor(tmp_path / "nothing", config)
        problem = await refused(engine.start())
        assert problem.kind == "internal"
        assert "MissingFile: no meter at" in problem.detail
        assert "MissingFile" in engine.checks()["worker"]
        assert (await refused(score(engine, "x"))).status == 503
        await engine.stop()

    run(work)


def test_a_sentinel_that_fails_keeps_the_service_from_starting(tmp_path: Path) -> None:
    async def work() -> None:
        async with running(mock_config(tmp_path)):
            pass
        (file,) = tmp_path.glob("sentinel-*.json")
        kept = json.loads(file.read_text())
        kept["probes"][1]["score"] += 0.001
        file.write_text(json.dumps(kept))
        engine = Supervisor(Path("none"), mock_config(tmp_path))
        assert "prompt 1: a score that moved by 0.001" in (await refused(engine.start())).detail
        assert "a score that moved" in engine.checks()["sentinel"]
        await engine.stop()

    run(work)


def test_the_sentinel_is_asked_again_in_idle_times_and_a_change_costs_readiness(tmp_path: Path) -> None:
    async def work() -> None:
        config = mock_config(tmp_path, time={"sentinel_idle_s": 0.1, "respawn_first_s": 0.2})
        async with running(config) as engine:
            (file,) = tmp_path.glob("sentinel-*.json")
            kept = file.read_text()
            file.write_text(kept.replace('"score": 0.', '"score": 9.'))
            while engine.gauges.up:
                await asyncio.sleep(0.01)
            assert engine.checks()["sentinel"] != "ok"
            assert (await refused(score(engine, "x"))).kind == "restarting"
            file.write_text(kept)
            await until_up(engine)
            assert engine.checks()["sentinel"] == "ok"
            assert set(engine.gauges.restarts) == {"sentinel"}

    run(work)
