"""The whole service: engine, store, application and server, put together and run until a signal."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI

from perimetry.monitor.drift.drift_service import DriftService
from perimetry.monitor.gauging import count_batch, read_engine, read_store
from perimetry.monitor.http.app import create_app
from perimetry.monitor.http.metrics import Metrics
from perimetry.monitor.http.server import serve
from perimetry.monitor.http.sinks import EventSink, NoSink
from perimetry.monitor.logs import logging_to
from perimetry.monitor.serve_config import ServeConfig
from perimetry.monitor.sink import StoreSink
from perimetry.monitor.store.event_store import EventStore
from perimetry.monitor.supervisor import Supervisor
from perimetry.monitor.telemetry.telemetry import Telemetry
from perimetry.monitor.web.pages import OPEN_PATHS, page_routes

__all__ = ["Beside", "beside", "make_app", "run_service"]

_log = logging.getLogger("perimetry.monitor")


class Beside(NamedTuple):
    """What works beside the requests, in threads of its own."""

    metrics: Metrics
    """What Prometheus reads."""
    store: EventStore | None
    """What keeps events; None: nothing does."""
    drift: DriftService
    """What watches the traffic."""
    telemetry: Telemetry
    """What tells a collector."""


@contextlib.contextmanager
def beside(config: ServeConfig, metrics: Metrics) -> Iterator[Beside]:
    """Open all of it, and close it in order. Errors: those of opening the store and of the file of headers."""
    with contextlib.ExitStack() as held:
        store = None
        if config.events:
            store = EventStore(config.store).open()
            held.callback(store.close)
            for line in store.state().notes:
                _log.warning("event store: %s", line)
        telemetry = Telemetry(config.telemetry, metrics)
        held.callback(telemetry.close)
        drift = DriftService(config.drift, store, metrics)
        held.callback(drift.close)
        yield Beside(metrics, store, drift, telemetry)


def make_app(
    meter: Path, config: ServeConfig, around: Beside, ready: Callable[[Supervisor], object] = lambda _: None
) -> FastAPI:
    """The application over a meter, in the event loop that it will run in.

    `ready`: told the engine once its model is loaded. Errors: those of the file of tokens.
    """
    metrics, store, drift, telemetry = around
    engine = Supervisor(meter, config.scoring, observe=partial(count_batch, metrics))
    read_engine(metrics, engine)
    sink: EventSink = NoSink()
    if store is not None:
        read_store(metrics, store)
        sink = StoreSink(store, listeners=config.http.limits.subscribers, required=config.store_required)

    def loaded() -> None:
        drift.begin(engine.baseline, engine.artifact)
        ready(engine)

    return create_app(
        *(config.http, engine, sink, drift),
        metrics=metrics,
        listeners=(drift, telemetry),
        pages=(page_routes,),
        open_paths=OPEN_PATHS,
        ready=loaded,
    )


def run_service(
    meter: Path,
    config: ServeConfig,
    *,
    started: Callable[[str], None],
    ready: Callable[[Supervisor], object],
    level: int = logging.INFO,
    as_json: bool = False,
) -> bool:
    """Serve until a signal comes. From the main thread.

    `started`: told the address as soon as it listens; probes are answered from then on. `ready`: told the engine once it scores.
    Returns False where the model could not be loaded, or was lost later. Errors: `ConfigError`, `Locked` and others of opening the store.
    """
    metrics = Metrics()

    def lost() -> None:
        metrics.telemetry_dropped.labels("log").inc()

    with contextlib.ExitStack() as held:
        held.enter_context(logging_to(level, as_json=as_json, lines=config.log_lines, lost=lost))
        make = partial(make_app, meter, config, held.enter_context(beside(config, metrics)), ready)
        return asyncio.run(serve(make, config.http, started))
