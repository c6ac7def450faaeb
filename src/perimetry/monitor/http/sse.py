"""Server-sent events: frames as they come, a sign of life in silence, an end as soon as nobody listens."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from perimetry.monitor.http.calls import cancelled, closed, gone

__all__ = ["EventStream", "frame"]

PING = b": ping\n\n"


def frame(data: str | dict[str, Any], *, event: str | None = None, number: int | None = None) -> bytes:
    r"""One frame. JSON has no line ends of its own, so one line of data is enough.

    >>> frame({"a": 1}, event="final", number=7)
    b'id: 7\nevent: final\ndata: {"a": 1}\n\n'
    """
    text = data if isinstance(data, str) else json.dumps(data, allow_nan=False)
    head = ("" if number is None else f"id: {number}\n") + ("" if event is None else f"event: {event}\n")
    return f"{head}data: {text}\n\n".encode()


@final
class EventStream(Response):
    """An answer of frames. When the client hangs up, the frames are closed."""

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncIterator[bytes],
        ping_s: float,
        after: Callable[[], Awaitable[None]],
        until: asyncio.Event | None = None,
    ) -> None:
        """`ping_s`: seconds of silence before a sign of life. `until`: ends the answer when it is set.

        `after`: called at the end, also where the frames were never begun, and so cannot clean up themselves.
        """
        super().__init__(None, headers={"x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._frames, self._ping_s, self._after, self._until = frames, ping_s, after, until

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send frames until there are none."""
        left = asyncio.ensure_future(gone(receive))
        ends: set[asyncio.Future[Any]] = {left}
        if self._until is not None:
            ends.add(asyncio.ensure_future(self._until.wait()))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._pump(send, ends)
            if not left.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await cancelled(*ends)
            await closed(self._frames)
            await self._after()

    async def _pump(self, send: Send, ends: set[asyncio.Future[Any]]) -> None:
        while True:
            coming = asyncio.ensure_future(anext(self._frames))
            try:
                while not coming.done():
                    await asyncio.wait({coming, *ends}, timeout=self._ping_s, return_when=asyncio.FIRST_COMPLETED)
                    if any(end.done() for end in ends):
                        return
                    if not coming.done():
                        await send({"type": "http.response.body", "body": PING, "more_body": True})
                piece = coming.result()
            except StopAsyncIteration:
                return
            finally:
                await cancelled(coming)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
