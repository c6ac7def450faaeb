"""What is known of one request while it is answered, and waiting for work that nobody waits for any more."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextvars import ContextVar
from typing import Any, Final, TypeVar, final

from starlette.requests import Request
from starlette.types import Receive

__all__ = [
    "TRACEPARENT",
    "Call",
    "ClientGone",
    "call_of",
    "cancelled",
    "closed",
    "gone",
    "header",
    "until_gone",
    "where",
]

T = TypeVar("T")

TRACEPARENT: Final[ContextVar[str | None]] = ContextVar("traceparent", default=None)
"""The header `traceparent` of the request that is being answered, as it came: the span of whoever asks."""


class ClientGone(Exception):
    """The client hung up; nobody reads an answer."""


@final
class Call:
    """One request."""

    def __init__(self, name: str, began: float) -> None:
        """`name`: what it is known by. `began`: when its head was complete, on the clock of the event loop."""
        self.name, self.began = name, began
        self.outcome = "ok"
        """What became of it: `ok`, `uncalibrated`, `cancelled`, or the kind of a problem."""
        self.status: int | None = None
        """Of the answer, once one has begun."""
        self.body_read = True
        """False while a part of its body has not been read."""
        self.small_body = False
        """Whether its body is declared to be so small that it may be read to no end."""


def header(scope: Mapping[str, Any], name: bytes) -> str | None:
    """A header field of a request; the first, if there are several."""
    for key, value in scope["headers"]:
        if key == name:
            return value.decode("latin-1")
    return None


def call_of(request: Request) -> Call:
    """The call that a request is."""
    found: Call = request.scope["state"]["call"]
    return found


async def cancelled(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks and wait until they have ended, whatever they end with."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def closed(iterator: AsyncIterator[Any]) -> None:
    """Close an iterator now, where it can be closed, not when it is collected: what it holds is given back."""
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()


async def gone(receive: Receive) -> None:
    """Return when the client hangs up. The body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def until_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of the work, which is cancelled if the client hangs up before. The body must have been read.

    Errors: `ClientGone`, and those of the work.
    """
    job, left = asyncio.ensure_future(work), asyncio.ensure_future(gone(request.receive))
    try:
        await asyncio.wait({job, left}, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        raise ClientGone
    finally:
        await cancelled(job, left)


def where(fault: BaseException) -> str:
    """Files and lines that a fault came through, innermost first; nothing of its message, which may hold a prompt."""
    frames = traceback.extract_tb(fault.__traceback__)[-6:]
    return " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames))
