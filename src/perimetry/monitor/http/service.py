"""What the routes share."""

import asyncio
from typing import NamedTuple

import httpx

from perimetry.monitor.engine import Engine
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.judging import Judge
from perimetry.monitor.http.limits import Room
from perimetry.monitor.http.metrics import Metrics
from perimetry.monitor.http.sinks import DriftSource, EventSink
from perimetry.monitor.http.tokens import Sessions, Tokens

__all__ = ["Service"]


class Service(NamedTuple):
    """One service."""

    config: HttpConfig
    """How it is set."""
    engine: Engine
    """What scores."""
    sink: EventSink
    """What keeps events."""
    drift: DriftSource | None
    """What watches the traffic, if anything does."""
    judge: Judge
    """From texts to verdicts."""
    metrics: Metrics
    """What Prometheus reads."""
    room: Room
    """Requests at work."""
    tokens: Tokens | None
    """Who may ask; None: everybody on this machine."""
    sessions: Sessions
    """Browsers that showed a token."""
    upstream: httpx.AsyncClient | None
    """The way to the model behind the proxy, if there is one."""
    stopping: asyncio.Event
    """Set when the service stops: streams without an end then end."""

    failed: asyncio.Event
    """Set where the model cannot be loaded: the service then ends."""

    def begin(self) -> None:
        """Take requests, also after an earlier end."""
        self.room.draining = False
        self.stopping.clear()
        self.failed.clear()

    def drain(self) -> None:
        """Take no more requests, and end streams that have no end. From a signal handler: by `call_soon_threadsafe`."""
        self.room.draining = True
        self.stopping.set()
