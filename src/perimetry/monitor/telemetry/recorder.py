"""Log records through OpenTelemetry's Logs API. The one module, with the queue, that needs OpenTelemetry to be installed."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, final

from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from perimetry import __version__
from perimetry.monitor.telemetry.evaluation import EVENT, SCHEMA_URL
from perimetry.monitor.telemetry.outbox import Outbox
from perimetry.monitor.telemetry.telemetry_config import TelemetryConfig, read_headers

__all__ = ["Recorder", "to_collector"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SPANS: Final = TraceContextTextMapPropagator()


def to_collector(config: TelemetryConfig) -> OTLPLogExporter:
    """What sends to the address of the configuration. Errors: those of `read_headers`."""
    headers = None if config.headers is None else read_headers(config.headers)
    return OTLPLogExporter(endpoint=config.address, headers=headers, timeout=config.timeout_s)


@final
class Recorder:
    """Makes records and puts them into the queue."""

    def __init__(self, config: TelemetryConfig, dropped: Callable[[int], object], exporter: LogRecordExporter) -> None:
        """`dropped`: told how many records were lost, from any thread. `exporter`: takes them."""
        self.outbox = Outbox(exporter, config, dropped)
        made = Resource.create({"service.name": config.service_name, "service.version": __version__})
        provider = LoggerProvider(made, shutdown_on_exit=False)
        provider.add_log_record_processor(self.outbox)
        self._logger = provider.get_logger("perimetry.monitor", __version__, SCHEMA_URL)

    def record(
        self, when: datetime, attributes: Mapping[str, str | float], traceparent: str | None, *, fault: bool = False
    ) -> None:
        """One event. `traceparent`: its parent, as the header says it; what is none is no parent."""
        parent = _SPANS.extract({} if traceparent is None else {"traceparent": traceparent}, Context())
        self._logger.emit(
            timestamp=(when - _EPOCH) // timedelta(microseconds=1) * 1000,
            context=parent,
            severity_number=SeverityNumber.WARN if fault else SeverityNumber.INFO,
            attributes=dict(attributes),
            event_name=EVENT,
        )
