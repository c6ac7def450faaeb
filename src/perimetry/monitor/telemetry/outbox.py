"""The queue before the collector: bounded, never waited for, emptied by one thread, with a count of all that is lost."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import final

from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from perimetry.monitor.telemetry.telemetry_config import TelemetryConfig

__all__ = ["Outbox"]

_log = logging.getLogger("perimetry.monitor.telemetry")


@final
class Outbox(LogRecordProcessor):
    """A processor of log records as OpenTelemetry's own for batches, but every record that is lost is counted, once, and its end has a bound.

    What is counted as lost may have arrived where the collector took it and could not say so.
    """

    def __init__(self, exporter: LogRecordExporter, config: TelemetryConfig, dropped: Callable[[int], object]) -> None:
        """`dropped`: told how many records were lost, from any thread."""
        self._exporter, self._config, self._dropped = exporter, config, dropped
        self._batch = min(config.batch, config.queue)
        self._queue: deque[ReadableLogRecord] = deque()
        self._flying = 0
        self._closed = self._hurry = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="telemetry", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Records that were neither taken by the collector nor given up: never more than `queue`."""
        with self._changed:
            return len(self._queue) + self._flying

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Take a record, or drop it where the queue is full. Never waits."""
        assert log_record.resource is not None, "a logger gives each record its resource"
        ready = ReadableLogRecord(
            log_record=log_record.log_record,
            resource=log_record.resource,
            instrumentation_scope=log_record.instrumentation_scope,
            limits=log_record.limits,
        )
        with self._changed:
            taken = not self._closed and len(self._queue) + self._flying < self._config.queue
            if taken:
                self._queue.append(ready)
                if len(self._queue) in (1, self._batch):
                    self._changed.notify_all()
        if not taken:
            self._dropped(1)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what waits now, without waiting for company; False where that is not over in time."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            over = self._changed.wait_for(lambda: not self._queue and not self._flying, timeout_millis / 1000)
            self._hurry = False
        return over

    def shutdown(self) -> None:
        """Send what waits for as long as the configuration says, drop the rest, and end. No record is taken any more."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._queue and not self._flying, self._config.close_s)
            lost, self._flying = len(self._queue) + self._flying, 0
            self._queue.clear()
            self._changed.notify_all()
        if lost:
            self._dropped(lost)
        self._exporter.shutdown()

    def _work(self) -> None:
        while batch := self._next():
            taken = self._taken(batch)
            with self._changed:
                # Nothing flies any more where the end came first: then it was counted there.
                lost = 0 if taken else self._flying
                self._flying = 0
                self._changed.notify_all()
            if lost:
                self._dropped(lost)

    def _next(self) -> list[ReadableLogRecord]:
        """The records to send next, once they are enough or have waited; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            due = time.monotonic() + self._config.wait_s
            while len(self._queue) < self._batch and not self._closed and not self._hurry:
                if not self._changed.wait(max(0.0, due - time.monotonic())):
                    break
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch))]
            self._flying = len(batch)
            return batch

    def _taken(self, batch: list[ReadableLogRecord]) -> bool:
        """Whether the collector took them."""
        try:
            return self._exporter.export(batch) is LogRecordExportResult.SUCCESS
        except Exception as fault:
            _log.warning("telemetry could not be sent: %s", type(fault).__name__)
            return False
