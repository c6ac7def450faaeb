"""The worker: the process that owns the model. It runs apart from the one that listens, which starts it and may kill it.

It says `ready` when the sentinel has passed, then answers batches in the order in which they come. A thread takes what comes in, so that a
batch can be given up while it runs, and ends the process when the other side is gone. Nothing is answered after an error of
the device: the process ends instead.
"""

import array
import contextlib
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

from perimetry.errors import PerimetryError
from perimetry.monitor.baseline import baseline_arrays, baseline_header
from perimetry.monitor.config import MonitorConfig
from perimetry.monitor.frames import Decoder, Frame, encode
from perimetry.monitor.sentinel import check_sentinel
from perimetry.monitor.tap import Aborted, AbstractTap
from perimetry.monitor.wire import Answer, Asked, asked_of, done_frame

__all__ = ["EXIT_FAULT", "EXIT_REFUSED", "Inbox", "answer", "main"]

EXIT_REFUSED: Final = 2
"""The meter cannot be loaded, or the sentinel has not passed."""
EXIT_FAULT: Final = 70
"""An error after which nothing is to be believed."""
_PIECE: Final = 2**16


@final
class Inbox:
    """What the other side sends, taken in by a thread of its own."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._given_up: set[int] = set()
        threading.Thread(target=self._take_in, daemon=True).start()

    def next(self) -> Frame:
        """The next message that is not about giving up."""
        return self._frames.get()

    def given_up(self, number: int) -> bool:
        """Whether nobody waits for that batch any more."""
        return number in self._given_up

    def over(self, number: int) -> None:
        """That batch is done; whether it was given up matters no more."""
        self._given_up.discard(number)

    def _take_in(self) -> None:
        decoder = Decoder()
        with contextlib.suppress(OSError, PerimetryError):
            while data := self._connection.recv(_PIECE):
                for frame in decoder.feed(data):
                    if frame.kind == "abort":
                        self._given_up.add(int(frame.header["batch"]))
                    else:
                        self._frames.put(frame)
        # The other side is gone, or speaks no sense: there is nobody to work for.
        os._exit(0)


def answer(
    tap: AbstractTap, rows: Sequence[Asked], cancelled: Callable[[], bool], *, split: bool = True
) -> list[Answer]:
    """Answers to a batch. Where the memory does not suffice it is tried once more in two halves. Errors: as `AbstractTap.run`."""
    try:
        return tap.run(rows, cancelled)
    except MemoryError:
        if not split or len(rows) == 1:
            return [Answer(problem="out-of-memory") for _ in rows]
        half = len(rows) // 2
        parts = (rows[:half], rows[half:])
        return [one for part in parts for one in answer(tap, part, cancelled, split=False)]


def _open(header: Mapping[str, Any]) -> tuple[AbstractTap, Path]:
    """The tap that the first message names, and the folder of its sentinel."""
    config = MonitorConfig.model_validate(header["config"])
    if config.worker.tap == "mock":
        from perimetry.monitor.mock_tap import MockTap

        tap: AbstractTap = MockTap(config.worker.mock_ms / 1e3, config.alpha)
    else:
        # cuBLAS reads this when it is loaded; without it there are no deterministic products on such devices.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        from perimetry.monitor.meter_tap import MeterTap

        tap = MeterTap.open(Path(header["meter"]), config)
    if config.worker.state is not None:
        return tap, config.worker.state
    from platformdirs import user_state_path

    return tap, user_state_path("perimetry") / "monitor"


def _ready(tap: AbstractTap, sentinel: str) -> bytes:
    facts = tap.facts
    header = {
        "kind": "ready",
        "artifact": facts.artifact,
        "groups": [group._asdict() for group in facts.groups],
        "card": dict(facts.card),
        "encoder": facts.encoder,
        "probes": [{"text": probe.text, "ids": probe.ids} for probe in tap.probe()],
        "sentinel": sentinel,
        "baseline": None if facts.baseline is None else baseline_header(facts.baseline),
    }
    more = {} if facts.baseline is None else baseline_arrays(facts.baseline)
    return encode(header, {"tokenizer": array.array("B", facts.tokenizer.encode()), **more})


def _serve(tap: AbstractTap, state: Path, inbox: Inbox, connection: socket.socket) -> int:
    """Answer until told to stop."""
    while True:
        frame = inbox.next()
        if frame.kind == "stop":
            return 0
        if frame.kind == "sentinel":
            verdict = check_sentinel(tap, state)
            connection.sendall(encode({"kind": "sentinel", "ok": verdict.ok, "detail": verdict.detail}))
        if frame.kind == "batch":
            number, begin = int(frame.header["batch"]), time.monotonic()
            try:
                answers = answer(tap, asked_of(frame), lambda number=number: inbox.given_up(number))
            except Aborted:
                answers = []
            inbox.over(number)
            connection.sendall(done_frame(number, answers, time.monotonic() - begin))


def _refused(connection: socket.socket, why: str) -> int:
    connection.sendall(encode({"kind": "refused", "why": why}))
    return EXIT_REFUSED


def _work(connection: socket.socket) -> int:
    inbox = Inbox(connection)
    try:
        tap, state = _open(inbox.next().header)
        verdict = check_sentinel(tap, state)
    except PerimetryError as error:
        return _refused(connection, f"{type(error).__name__}: {error}")
    except OSError as error:
        # Nothing was read yet but the meter and the model, so that the message holds no prompt.
        return _refused(connection, f"{error.filename or 'a file'} cannot be read: {error.strerror or error}")
    if not verdict.ok:
        return _refused(connection, f"sentinel: {verdict.detail}")
    connection.sendall(_ready(tap, verdict.detail))
    return _serve(tap, state, inbox, connection)


def main(descriptor: int) -> int:
    """Work for whoever holds the other end of a socket, until told to stop; returns the exit code.

    What goes wrong is told by type and place only: a message could hold what was read.
    """
    for name in (signal.SIGINT, signal.SIGTERM):
        # They are meant for the service, which lets the worker finish first.
        signal.signal(name, signal.SIG_IGN)
    connection = socket.socket(fileno=descriptor)
    try:
        return _work(connection)
    except Exception as error:
        places = "".join(traceback.format_tb(error.__traceback__))
        sys.stderr.write(f"the worker ends after {type(error).__name__}\n{places}")
        return EXIT_FAULT


if __name__ == "__main__":
    code = main(int(sys.argv[1]))
    sys.stderr.flush()
    # At once: a poisoned device may hang in what an interpreter does at its end.
    os._exit(code)
