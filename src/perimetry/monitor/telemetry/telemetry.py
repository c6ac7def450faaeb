"""Every score and every failure as an OpenTelemetry event. What cannot be sent is dropped and counted; nothing waits for it."""

from datetime import UTC, datetime
from typing import Any, Final, final

from perimetry.errors import UsageError
from perimetry.monitor.http.calls import TRACEPARENT
from perimetry.monitor.http.metrics import Metrics
from perimetry.monitor.http.sinks import NewEvent
from perimetry.monitor.telemetry.evaluation import of_failure, of_score
from perimetry.monitor.telemetry.telemetry_config import TelemetryConfig

__all__ = ["SINK", "Telemetry"]

SINK: Final = "otlp"
"""Label under which lost events are counted."""


def _recorder(config: TelemetryConfig, metrics: Metrics, exporter: Any) -> Any:
    try:
        from perimetry.monitor.telemetry.recorder import Recorder, to_collector
    except ImportError as error:
        raise UsageError(
            "telemetry wants OpenTelemetry, which is not installed; pip install 'perimetry[telemetry]'"
        ) from error
    counter = metrics.telemetry_dropped.labels(SINK)
    return Recorder(config, counter.inc, exporter or to_collector(config))


@final
class Telemetry:
    """A `Listener` that tells a collector. Does nothing where the configuration names none."""

    def __init__(self, config: TelemetryConfig, metrics: Metrics, exporter: Any = None) -> None:
        """`metrics`: counts what is lost. `exporter`: an OpenTelemetry exporter of log records in the place of that of the configuration.

        Errors: `UsageError` where OpenTelemetry is not installed, and those of reading the file of headers.
        """
        on = config.address is not None or exporter is not None
        self._recorder = _recorder(config, metrics, exporter) if on else None

    @property
    def waiting(self) -> int:
        """Events that were neither sent nor given up."""
        return 0 if self._recorder is None else self._recorder.outbox.waiting

    def scored(self, event: NewEvent, alpha: float) -> None:
        """As `Listener.scored`."""
        if self._recorder is not None:
            self._recorder.record(event.created, of_score(event, alpha), TRACEPARENT.get())

    def failed(self, adapter: str, alpha: float, kind: str) -> None:  # noqa: ARG002
        """As `Listener.failed`."""
        if self._recorder is not None:
            self._recorder.record(datetime.now(UTC), of_failure(alpha, kind), TRACEPARENT.get(), fault=True)

    def flush(self, within_s: float) -> bool:
        """Send what waits, now. Blocks for at most so many seconds; False where that did not suffice."""
        return self._recorder is None or self._recorder.outbox.force_flush(round(1000 * within_s))

    def close(self) -> None:
        """Send what waits, drop and count what cannot be sent, and end. Blocks for at most `close_s` of the configuration."""
        if self._recorder is not None:
            self._recorder.outbox.shutdown()
