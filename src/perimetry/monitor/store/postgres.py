"""A PostgreSQL that may be slow, mute or gone: no wait for it is longer than is configured."""

import math
import time
from collections.abc import Callable, Generator
from typing import Any

from sqlalchemy import URL, Engine, create_engine
from sqlalchemy import event as events

from perimetry.errors import UsageError

__all__ = ["postgres_engine"]


def _bounded(timeout_s: float) -> Callable[..., Any]:
    """What makes connections that are closed when one answer takes longer than this.

    The server's own limit does not help where the network swallows its answers, and one of the socket does not where
    something between acknowledges what it swallows.
    """
    try:
        import psycopg
    except ImportError as error:
        raise UsageError(
            "a store in PostgreSQL wants psycopg, which is not installed; pip install 'perimetry[postgres]'"
        ) from error

    class Bounded(psycopg.Connection[Any]):
        def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
            return super().wait(self._watched(gen), *arguments, **named)

        def _watched(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
            until = time.monotonic() + timeout_s
            try:
                state = next(gen)
                while True:
                    ready = yield state
                    if not ready and time.monotonic() > until:
                        self.pgconn.finish()
                        raise psycopg.OperationalError(f"no answer within {timeout_s:g} s")
                    state = gen.send(ready)
            except StopIteration as end:
                return end.value

    return Bounded.connect


def postgres_engine(url: URL, timeout_s: float, connections: int) -> Engine:
    """An engine with at most this many connections. Nothing is asked of the server yet.

    Errors: `UsageError` where psycopg is not installed.
    """
    connect = _bounded(timeout_s)
    engine = create_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout_s,
        pool_pre_ping=True,
        hide_parameters=True,  # an error must not repeat a prompt
        connect_args={"connect_timeout": max(2, math.ceil(timeout_s)), "application_name": "perimetry"},
    )

    def bounded(_dialect: Any, _record: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
        return connect(*arguments, **named)

    events.listen(engine, "do_connect", bounded)
    return engine
