"""What Prometheus may read of the service. Labels come from the configuration and from our tables, never from requests."""

from collections.abc import Callable, Mapping, Sequence
from typing import final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from perimetry.monitor.engine import Engine, GroupFacts

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TIMES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_FINE = (0.001, 0.0025, *_TIMES)
_P = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@final
class Metrics:
    """All metrics of one service, in a registry of their own, so that several services live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests()
        self._engine()
        self._scores()
        self._drift()
        self._keeping()
        self._groups: frozenset[str] = frozenset()
        self._readers: list[Callable[[], object]] = []

    def _counter(self, name: str, help_: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(f"perimetry_{name}", help_, tuple(labels), registry=self.registry)

    def _gauge(self, name: str, help_: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"perimetry_{name}", help_, tuple(labels), registry=self.registry)

    def _histogram(self, name: str, help_: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
        return Histogram(f"perimetry_{name}", help_, tuple(labels), buckets=buckets, registry=self.registry)

    def _requests(self) -> None:
        self.requests = self._counter("requests_total", "Requests by what became of them.", ("route", "outcome"))
        self.duration = self._histogram("request_duration_seconds", "Head complete to answer.", _TIMES, ("route",))
        self.loop_lag = self._histogram("loop_lag_seconds", "How late the event loop wakes.", _FINE)
        self.inflight = self._gauge("inflight", "Requests at work.")
        self.fail_open = self._counter("fail_open_total", "Texts let through without a score.", ("adapter",))
        self.telemetry_dropped = self._counter("telemetry_dropped_total", "Telemetry lost.", ("sink",))

    def _engine(self) -> None:
        self.queue_wait = self._histogram("queue_wait_seconds", "Time in the queue.", _FINE)
        self.forward = self._histogram("forward_seconds", "Time of a batch in the model.", _FINE)
        self.batch_rows = self._histogram("batch_rows", "Rows of a batch.", (1.0, 2.0, 4.0, 8.0, 16.0, 32.0))
        self.padding_ratio = self._histogram(
            "padding_ratio", "Share of a batch that is padding.", (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
        )
        self.queue_rows = self._gauge("queue_rows", "Rows that wait.")
        self.queue_tokens = self._gauge("queue_tokens", "Tokens that wait.")
        self.tokens = self._counter("tokens_total", "Tokens through the model.", ("kind",))
        self.worker_up = self._gauge("worker_up", "1 while the model answers.")
        self.sentinel_ok = self._gauge("sentinel_ok", "1 while the stored prompts score as they did.")
        self.worker_restarts = self._counter(
            "worker_restarts_total", "Starts of the model after the first.", ("reason",)
        )
        self.device_memory = self._gauge("device_memory_bytes", "Memory of the accelerator.", ("kind",))
        self.build_info = self._gauge("build_info", "Always 1.", ("version", "artifact", "backend", "dtype"))

    def _scores(self) -> None:
        self.p_value = self._histogram("p_value", "p-values; uniform on clean traffic.", _P, ("group",))
        self.flagged = self._counter("flagged_total", "Texts flagged.", ("group",))
        self.scores = self._counter("scores_total", "Texts scored.", ("group", "fallback"))
        self.calibration_age = self._gauge("calibration_age_seconds", "Since the meter was calibrated.")
        self.calibration_size = self._gauge("calibration_size", "Calibration prompts.", ("group",))

    def _drift(self) -> None:
        self.drift_statistic = self._gauge("drift_statistic", "Of the last window.", ("test",))
        self.drift_effect = self._gauge("drift_effect", "Of the last window.", ("test",))
        self.drift_alarms = self._counter("drift_alarms_total", "Windows that raised an alarm.", ("test",))
        self.cusum = self._gauge("cusum", "Cumulative sum of log p-values.")

    def _keeping(self) -> None:
        self.event_queue = self._gauge("event_queue", "Events that wait for the disk.")
        self.store_bytes = self._gauge("store_bytes", "Size of the event store.")
        self.events_written = self._counter("events_written_total", "Events kept.")
        self.events_dropped = self._counter("events_dropped_total", "Events lost.", ("reason",))

    def describe(self, version: str, engine: Engine) -> None:
        """Say once what is being served: build, groups and their sizes."""
        made: Mapping[str, str] = engine.artifact
        self.build_info.labels(version, made["calibration_sha256"], made["backend"], made["dtype"]).set(1)
        groups: Sequence[GroupFacts] = engine.groups
        self._groups = frozenset(group.name for group in groups)
        for group in groups:
            self.calibration_size.labels(group.name).set(group.n)

    def scored(self, group: str, p_value: float, *, flagged: bool, fallback: bool) -> None:
        """Count one text."""
        known = group if group in self._groups else "other"
        self.scores.labels(known, str(fallback).lower()).inc()
        self.p_value.labels(known).observe(p_value)
        if flagged:
            self.flagged.labels(known).inc()

    def before(self, read: Callable[[], object]) -> None:
        """Have something read each time before everything is said; it must not wait."""
        self._readers.append(read)

    def text(self) -> bytes:
        """Everything, in the format of Prometheus."""
        for read in self._readers:
            read()
        return generate_latest(self.registry)
