"""The queue before the collector: its bound, what is counted, and how long its end may take."""

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from perimetry.monitor.telemetry.recorder import Recorder
from perimetry.monitor.telemetry.telemetry_config import TelemetryConfig

OK, FAILED = LogRecordExportResult.SUCCESS, LogRecordExportResult.FAILURE


class Gate(LogRecordExporter):
    """Takes batches when it is opened; until then it hangs."""

    def __init__(self, answer: LogRecordExportResult | Exception = OK, *, is_open: bool = False) -> None:
        self.answer, self.open, self.entered = answer, threading.Event(), threading.Event()
        self.batches: list[list[Any]] = []
        self.ended = 0
        if is_open:
            self.open.set()

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self.entered.set()
        assert self.open.wait(20)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is OK:
            self.batches.append([(one.log_record.attributes or {})["n"] for one in batch])
        return self.answer

    def shutdown(self) -> None:
        self.ended += 1

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class Box:
    """A recorder before a gate."""

    def __init__(self, gate: Gate, **config: Any) -> None:
        self.gate, self.lost = gate, 0
        self.recorder = Recorder(TelemetryConfig.model_validate({"wait_s": 0.0} | config), self._count, gate)
        self.outbox = self.recorder.outbox

    def _count(self, lost: int) -> None:
        self.lost += lost

    def put(self, *numbers: float) -> None:
        for n in numbers:
            self.recorder.record(datetime.now(UTC), {"n": n}, None)

    def arrived(self) -> list[Any]:
        return [n for batch in self.gate.batches for n in batch]


def numbers(count: int, first: int = 0) -> list[float]:
    return [float(n) for n in range(first, first + count)]


def test_a_full_queue_drops_what_comes_and_counts_it_and_nobody_waits() -> None:
    box = Box(Gate())
    box.put(0.0)
    assert box.gate.entered.wait(20)
    box.put(*numbers(2_047 + 100, 1))
    assert (box.outbox.waiting, box.lost) == (2_048, 100)
    box.gate.open.set()
    assert box.outbox.force_flush(20_000)
    assert box.arrived() == numbers(2_048)
    assert (box.outbox.waiting, box.lost) == (0, 100)
    box.outbox.shutdown()


def test_records_are_sent_together_and_in_order() -> None:
    box = Box(Gate(), batch=4, wait_s=1e6)
    box.put(*numbers(4))
    assert box.gate.entered.wait(20)
    box.put(*numbers(6, 4))
    box.gate.open.set()
    assert box.outbox.force_flush(20_000)
    assert box.gate.batches == [numbers(4), numbers(4, 4), numbers(2, 8)]
    box.outbox.shutdown()


def test_a_batch_is_never_larger_than_the_queue() -> None:
    box = Box(Gate(is_open=True), queue=2, batch=100, wait_s=1e6)
    box.put(0.0, 1.0)
    assert box.gate.entered.wait(20)
    assert box.outbox.force_flush(20_000)
    assert box.arrived() == [0.0, 1.0]
    box.outbox.shutdown()


@pytest.mark.parametrize("fault", [FAILED, RuntimeError("a secret")], ids=str)
def test_a_batch_that_is_refused_is_counted_and_the_next_one_is_tried(
    fault: LogRecordExportResult | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    box = Box(Gate(fault, is_open=True))
    box.put(*numbers(3))
    assert box.outbox.force_flush(20_000)
    assert (box.lost, box.outbox.waiting) == (3, 0)
    box.gate.answer = OK
    box.put(*numbers(2, 3))
    assert box.outbox.force_flush(20_000)
    assert (box.arrived(), box.lost) == ([3.0, 4.0], 3)
    assert "secret" not in caplog.text
    box.outbox.shutdown()


def test_the_end_sends_what_waits() -> None:
    box = Box(Gate(is_open=True), wait_s=1e6)
    box.put(*numbers(5))
    box.outbox.shutdown()
    assert (box.arrived(), box.lost, box.gate.ended) == (numbers(5), 0, 1)


def test_the_end_does_not_wait_for_a_collector_that_hangs_and_counts_everything_once() -> None:
    box = Box(Gate(), batch=2, close_s=0.2)
    box.put(*numbers(5))
    assert box.gate.entered.wait(20)
    began = time.monotonic()
    box.outbox.shutdown()
    assert time.monotonic() - began < 0.2 + 1.0
    assert (box.lost, box.outbox.waiting) == (5, 0)
    box.put(9.0)
    assert box.lost == 6
    box.gate.answer = FAILED
    box.gate.open.set()
    box.outbox._thread.join(20)  # pyright: ignore[reportPrivateUsage]
    assert not box.outbox._thread.is_alive()  # pyright: ignore[reportPrivateUsage]
    box.outbox.shutdown()
    assert (box.lost, box.gate.ended) == (6, 1)


def test_a_flush_has_a_bound() -> None:
    box = Box(Gate(), close_s=0.0)
    box.put(0.0)
    assert not box.outbox.force_flush(10)
    box.gate.open.set()
    assert box.outbox.force_flush(20_000)
    box.outbox.shutdown()
    assert box.lost == 0


def test_every_record_of_many_threads_arrives_or_is_counted() -> None:
    box = Box(Gate(is_open=True), queue=50, batch=7)
    threads = [threading.Thread(target=box.put, args=tuple(numbers(300, 1000 * i))) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    box.outbox.shutdown()
    arrived = box.arrived()
    assert len(arrived) == len(set(arrived))
    assert len(arrived) + box.lost == 1200
