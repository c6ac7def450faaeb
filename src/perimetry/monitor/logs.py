"""Logging that never makes a request wait: lines go through a bounded queue to a thread that writes them, and are lost, counted, where it is full."""

import contextlib
import json
import logging
import logging.handlers
import os
import queue
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, final

__all__ = ["JsonLines", "Plain", "logging_to"]


def _when(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class Plain(logging.Formatter):
    """A line for a person."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, message; of an exception its type only, since a message may hold a prompt."""
        fault = "" if record.exc_info is None or record.exc_info[0] is None else f" ({record.exc_info[0].__name__})"
        return f"{_when(record)} {record.levelname.lower()} {record.getMessage()}{fault}"


class JsonLines(Plain):
    """A line for a machine."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object: `time`, `level`, `logger`, `message`, and `fault` where there is one."""
        found: dict[str, Any] = {
            "time": _when(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info is not None and record.exc_info[0] is not None:
            found["fault"] = record.exc_info[0].__name__
        return json.dumps(found, ensure_ascii=True)


@final
class _Writer(logging.Handler):
    """Writes lines to a file descriptor, without a lock: where the reader is stuck nobody else must wait for it, not even the end of the process."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def createLock(self) -> None:  # noqa: N802
        """No lock: one thread writes."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a reader that has gone is nobody's fault."""
        left = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            while left:
                left = left[os.write(self._descriptor, left) :]


@final
class _Dropping(logging.handlers.QueueHandler):
    """Hands records over, or counts them as lost. Never waits."""

    def __init__(self, waiting: "queue.Queue[logging.LogRecord]", lost: Callable[[], object]) -> None:
        super().__init__(waiting)
        self._lost = lost

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """As it is: the writer is a thread of this process."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put it into the queue, if it takes it."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self._lost()


@final
class _Listener(logging.handlers.QueueListener):
    """Writes what waits. Where the reader is stuck, the end of the process does not wait for it."""

    def enqueue_sentinel(self) -> None:
        """Say that nothing more comes."""
        with contextlib.suppress(queue.Full):
            self.queue.put_nowait(None)

    def stop(self) -> None:
        """Write what waits, for two seconds at most."""
        thread = self._thread
        if thread is not None:
            self.enqueue_sentinel()
            thread.join(2.0)
            self._thread = None


@contextlib.contextmanager
def logging_to(
    level: int, *, as_json: bool, lines: int, lost: Callable[[], object], descriptor: int = 2
) -> Iterator[None]:
    """Send what the service and its libraries log to a file descriptor (standard error) while this lasts.

    `lines` may wait at most; for each that is lost, `lost` is called. What libraries say below a warning is left out.
    """
    waiting: queue.Queue[Any] = queue.Queue(lines)
    writer = _Writer(descriptor)
    writer.setFormatter(JsonLines() if as_json else Plain())
    handler, root, ours = _Dropping(waiting, lost), logging.getLogger(), logging.getLogger("perimetry")
    before = root.level, ours.level
    listener = _Listener(waiting, writer)
    listener.start()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    ours.setLevel(level)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before[0])
        ours.setLevel(before[1])
        listener.stop()
