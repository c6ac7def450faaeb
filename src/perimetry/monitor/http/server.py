"""uvicorn with this application: one process, one loop, HTTP/1.1, its limits set, an orderly end."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from perimetry.errors import ConfigError
from perimetry.monitor.http.app import service_of
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.protocol import guarded
from perimetry.monitor.http.service import Service

__all__ = ["Listener", "listen", "serve", "settings"]


def settings(app: FastAPI, config: HttpConfig) -> uvicorn.Config:
    """How uvicorn is set. Its own access log is off: it would hold addresses that clients make up."""
    limits = config.limits
    return uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        loop="asyncio",
        http=guarded(limits.head_s, limits.stalled_s),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        workers=1,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=limits.keep_alive_s,
        timeout_graceful_shutdown=limits.drain_s,
        h11_max_incomplete_event_size=limits.header_bytes,
    )


class Listener(uvicorn.Server):
    """A server that says that it stops as soon as it is told to, not when it has stopped; and that ends where there is no model."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        """`service`: what its application shares."""
        super().__init__(config)
        self._service = service
        self._running: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        self._running = asyncio.get_running_loop()
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether it is over."""
        return await super().on_tick(counter) or self._service.failed.is_set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: requests that run are finished, no others are begun."""
        if self._running is not None:
            self._running.call_soon_threadsafe(self._service.drain)
        super().handle_exit(sig, frame)


def listen(config: HttpConfig) -> socket.socket:
    """A socket at the address of the configuration. Errors: `ConfigError` where it is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY on such sockets only: without it each answer waits 40 ms.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((config.host.strip("[]"), config.port))
    except OSError as error:
        found.close()
        raise ConfigError(
            f"cannot listen on {config.host}:{config.port}: {error.strerror or error}; choose another port, or end what "
            "listens there"
        ) from error
    return found


@contextlib.contextmanager
def _ends_well() -> Iterator[None]:
    """uvicorn raises the signal again once it has stopped; then it is nobody's business any more."""
    handlers = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


async def serve(
    make: Callable[[], FastAPI], config: HttpConfig, started: Callable[[str], None] = lambda _: None
) -> bool:
    """Serve until a signal comes; requests that run then get `drain_s` seconds. From the main thread.

    `make`: makes the application, in the event loop that it will run in. `started`: told the address before the first request.
    Returns False where the model could not be loaded, or was lost later. Errors: `ConfigError`.
    """
    door = listen(config)
    with _ends_well(), contextlib.closing(door):
        app = make()
        service = service_of(app)
        server = Listener(settings(app, config), service)
        host = f"[{config.host.strip('[]')}]" if ":" in config.host else config.host
        started(f"http://{host}:{door.getsockname()[1]}")
        await server.serve(sockets=[door])
    return server.started and not service.failed.is_set()
