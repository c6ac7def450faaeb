"""The application: layers from the outside in, routes, and what runs beside them."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Final

import httpx
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from perimetry import __version__
from perimetry.monitor.engine import Engine
from perimetry.monitor.http.adapters.detector import detector_routes
from perimetry.monitor.http.adapters.litellm import ADDRESS, litellm_routes
from perimetry.monitor.http.adapters.proxy import PROXIED, proxy_routes, to_upstream
from perimetry.monitor.http.edge import Edge
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.ids import Names
from perimetry.monitor.http.judging import Judge
from perimetry.monitor.http.limits import BodyLimits, HeadLimits, Room, Rooms
from perimetry.monitor.http.metrics import Metrics
from perimetry.monitor.http.openapi import describe
from perimetry.monitor.http.refusals import refuse_invalid, refuse_status
from perimetry.monitor.http.routes.score import score_routes
from perimetry.monitor.http.routes.session import OPENING, session_routes
from perimetry.monitor.http.routes.status import PROBES, status_routes
from perimetry.monitor.http.routes.traffic import traffic_routes
from perimetry.monitor.http.security import Access, Guard
from perimetry.monitor.http.service import Service
from perimetry.monitor.http.sinks import DriftSource, EventSink, Listener
from perimetry.monitor.http.tokens import Sessions, read_tokens
from perimetry.monitor.problems import Problem

__all__ = ["SCOPE_OF", "create_app", "service_of"]

SCOPE_OF: Final = {
    "/v1/score": "score",
    "/v1/score/stream": "score",
    "/api/v1/text/contents": "score",
    "/api/v1/text/chat": "score",
    ADDRESS: "score",
    **dict.fromkeys(PROXIED, "score"),
    "/v1/events": "read",
    "/v1/drift": "read",
    "/v1/drift/acknowledge": "read",
    "/metrics": "metrics",
}
"""Scope that an address wants; the others want any token."""

_LAG_S = 0.25
_log = logging.getLogger("perimetry.monitor.http")


def service_of(app: FastAPI) -> Service:
    """What the routes of an application share."""
    found: Service = app.state.service
    return found


async def _watch_lag(metrics: Metrics) -> None:
    loop = asyncio.get_running_loop()
    while True:
        wanted = loop.time() + _LAG_S
        await asyncio.sleep(_LAG_S)
        metrics.loop_lag.observe(max(0.0, loop.time() - wanted))


async def _start(service: Service, ready: Callable[[], object]) -> None:
    """Load the model while probes are answered already; without it the service ends, now or later."""
    try:
        await service.engine.start()
        service.metrics.describe(__version__, service.engine)
        ready()
        _log.error("nothing will be scored any more: %s", await service.engine.lost())
    except Problem as problem:
        _log.error("the model could not be loaded: %s", problem.detail)
    except Exception as fault:
        _log.error("the model could not be loaded: %s", type(fault).__name__)
    service.failed.set()


@contextlib.asynccontextmanager
async def _life(service: Service, ready: Callable[[], object]) -> AsyncIterator[None]:
    service.begin()
    beside = [asyncio.create_task(_watch_lag(service.metrics)), asyncio.create_task(_start(service, ready))]
    try:
        yield
    finally:
        service.drain()
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await service.engine.stop()
        if service.upstream is not None:
            await service.upstream.aclose()


def _layers(service: Service, names: Names, access: Access) -> list[Middleware]:
    limits = service.config.limits
    return [
        Middleware(Edge, names=names, metrics=service.metrics),
        Middleware(HeadLimits, limits=limits),
        Middleware(BodyLimits, limits=limits),
        Middleware(Guard, config=service.config, tokens=service.tokens, sessions=service.sessions, access=access),
        Middleware(Rooms, room=service.room, free=PROBES | {"/metrics"}),
    ]


def create_app(
    config: HttpConfig,
    engine: Engine,
    sink: EventSink,
    drift: DriftSource | None = None,
    *,
    metrics: Metrics | None = None,
    listeners: Sequence[Listener] = (),
    pages: Sequence[Callable[[Service], APIRouter]] = (),
    open_paths: Sequence[str] = (),
    transport: httpx.AsyncBaseTransport | None = None,
    ready: Callable[[], object] = lambda: None,
) -> FastAPI:
    """The application over an engine and a store. Starts the engine and stops it.

    `metrics`: where engine and store count too. `listeners`: told of every score and of every failure. `pages`: routes for people. `open_paths`: addresses of theirs that say themselves
    what they show to whom; one that ends in "/" stands for all below it. `transport`: how the model behind the proxy is reached, if not by the network.
    `ready`: called when the engine has loaded.
    Errors: those of reading the file of tokens.
    """
    metrics = metrics or Metrics()
    names = Names()
    service = Service(
        config=config,
        engine=engine,
        sink=sink,
        drift=drift,
        judge=Judge(config, engine, sink, metrics, names, listeners),
        metrics=metrics,
        room=Room(config.limits.in_flight, metrics),
        tokens=None if config.tokens is None else read_tokens(config.tokens),
        sessions=Sessions(lambda: asyncio.get_running_loop().time()),
        upstream=None if config.upstream is None else to_upstream(config.upstream, config.upstream_s, transport),
        stopping=asyncio.Event(),
        failed=asyncio.Event(),
    )
    exact = frozenset({OPENING, *(path for path in open_paths if path == "/" or not path.endswith("/"))})
    below = tuple(path for path in open_paths if path != "/" and path.endswith("/"))
    access = Access(SCOPE_OF, PROBES, exact, below)
    app = FastAPI(
        middleware=_layers(service, names, access),
        lifespan=lambda _: _life(service, ready),
        exception_handlers={HTTPException: refuse_status, RequestValidationError: refuse_invalid},
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.config, app.state.service = config, service
    ours = (score_routes, traffic_routes, status_routes, detector_routes, litellm_routes, proxy_routes, session_routes)
    for routes in (*ours, *pages):
        app.include_router(routes(service))
    app.openapi = partial(describe, app)  # pyright: ignore[reportAttributeAccessIssue]
    return app
