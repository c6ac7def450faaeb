"""A service over fakes that tells a collector, and a collector on a Unix socket, so that a proxy that fails can stand before it."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from tests.monitor.fakes import FakeDrift
from tests.monitor.http.desk import Desk

from perimetry.monitor.http.app import create_app
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.metrics import Metrics
from perimetry.monitor.http.sinks import Listener

__all__ = ["Collector", "collecting", "dropped", "told_desk"]


def told_desk(listener: Listener, config: HttpConfig | None = None, transport: Any = None) -> Desk:
    """A service whose scores and failures somebody hears of."""
    desk = Desk(config)

    def fresh() -> FastAPI:
        return create_app(desk.config, desk.engine, desk.sink, FakeDrift(), listeners=[listener], transport=transport)

    desk.fresh = fresh  # type: ignore[method-assign]
    return desk


def dropped(metrics: Metrics) -> int:
    """Events that were lost, as Prometheus reads it."""
    value = metrics.registry.get_sample_value("perimetry_telemetry_dropped_total", {"sink": "otlp"})
    assert value is not None
    return int(value)


class Collector:
    """What came in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Address and headers of each request."""
        self.records: list[LogRecord] = []
        self.scopes: list[tuple[str, str]] = []
        """Name and schema URL of the scope of each record."""
        self.resources: list[dict[str, str]] = []
        """Attributes of the resource of each record."""
        self._came = threading.Condition()

    def take(self, address: str, headers: dict[str, str], body: bytes) -> None:
        request = ExportLogsServiceRequest.FromString(body)
        with self._came:
            self.requests.append((address, headers))
            for of_resource in request.resource_logs:
                made = {one.key: one.value.string_value for one in of_resource.resource.attributes}
                for of_scope in of_resource.scope_logs:
                    for record in of_scope.log_records:
                        self.records.append(record)
                        self.scopes.append((of_scope.scope.name, of_scope.schema_url))
                        self.resources.append(made)
            self._came.notify_all()

    def has(self, true: Callable[[], bool], within_s: float = 20.0) -> bool:
        """Whether something becomes true of what came in."""
        with self._came:
            return self._came.wait_for(true, within_s)


@contextmanager
def collecting(folder: Path) -> Iterator[Collector]:
    """A collector that takes everything."""
    collector = Collector(folder / "otlp.sock")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.take(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            answer = ExportLogsServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Connections are cut on purpose."""

    with Server(str(collector.path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join(5)
