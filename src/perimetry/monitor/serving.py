"""The whole service: engine, store, application and server, put together and run until a signal."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fastapi import FastAPI

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

__all__ = ["make_app", "run_service"]

_log = logging.getLogger("perimetry.monitor")


def make_app(
    meter: Path,
    config: ServeConfig,
    store: EventStore | None,
    *,
    metrics: Metrics | None = None,
    ready: Callable[[Supervisor], object] = lambda _: None,
) -> FastAPI:
    """The application over a meter, in the event loop that it will run in.

    `store`: open, or None where nothing is kept. `ready`: told the engine once its model is loaded. Errors: those of the file of tokens.
    """
    metrics = metrics or Metrics()
    engine = Supervisor(meter, config.scoring, observe=partial(count_batch, metrics))
    read_engine(metrics, engine)
    sink: EventSink = NoSink()
    if store is not None:
        read_store(metrics, store)
        sink = StoreSink(store, listeners=config.http.limits.subscribers, required=config.store_required)
    return create_app(config.http, engine, sink, metrics=metrics, ready=lambda: ready(engine))


def run_service(
    meter: Path,
    config: ServeConfig,
    *,
    started: Callable[[str], object],
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
        store = None
        if config.events:
            store = EventStore(config.store).open()
            held.callback(store.close)
            for line in store.state().notes:
                _log.warning("event store: %s", line)
        make = partial(make_app, meter, config, store, metrics=metrics, ready=ready)
        return asyncio.run(serve(make, config.http, lambda address: started(address) and None))
