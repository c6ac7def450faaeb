"""What is refused before anybody reads it: heads and bodies that are too large or too slow, and more requests than there is room for.

Pure ASGI, so that nothing is buffered and a refusal costs nothing. Each raises a `Problem`, which the edge turns into an answer.
"""

import asyncio
from typing import final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perimetry.monitor.http.calls import Call, header
from perimetry.monitor.http.http_config import Limits
from perimetry.monitor.http.metrics import Metrics
from perimetry.monitor.problems import Problem

__all__ = ["BodyLimits", "HeadLimits", "Room", "Rooms"]


def _head_bytes(scope: Scope) -> int:
    """Bytes of a head as it was sent: each field with its colon, blank and line end."""
    line = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
    return line + sum(len(key) + len(value) + 4 for key, value in scope["headers"])


@final
class HeadLimits:
    """ASGI middleware: 431 for a head with too many fields or bytes."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass, or raise `Problem` of `headers`."""
        if scope["type"] == "http":
            fields, size = len(scope["headers"]), _head_bytes(scope)
            if fields > self._limits.header_fields or size > self._limits.header_bytes:
                most = f"at most {self._limits.header_fields} fields and {self._limits.header_bytes} bytes"
                raise Problem("headers", f"{fields} header fields and {size} bytes; {most} are taken")
        await self._app(scope, receive, send)


@final
class BodyLimits:
    """ASGI middleware: 413 for a body that is too large, 408 for one that is too slow, both when it is read."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass, with a body that counts its bytes and its time."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call: Call = scope["state"]["call"]
        declared = header(scope, b"content-length") or "0"
        declared_bytes = int(declared) if declared.isascii() and declared.isdigit() else 0
        seen, ended = 0, False

        async def read() -> Message:
            nonlocal seen, ended
            if ended:
                return await receive()
            if declared_bytes > self._limits.body_bytes:
                raise self._too_large()
            try:
                async with asyncio.timeout_at(call.began + self._limits.body_s):
                    message = await receive()
            except TimeoutError:
                raise Problem("slow-body", f"{self._limits.body_s:g} seconds are given") from None
            seen += len(message.get("body", b""))
            ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
            if seen > self._limits.body_bytes:
                raise self._too_large()
            return message

        await self._app(scope, read, send)

    def _too_large(self) -> Problem:
        return Problem("too-large", f"at most {self._limits.body_bytes} bytes are taken")


@final
class Room:
    """How many requests are at work, and whether new ones are still taken."""

    def __init__(self, most: int, metrics: Metrics) -> None:
        self._most, self._metrics = most, metrics
        self.used = 0
        """Requests at work."""
        self.draining = False
        """True once the service is stopping."""

    def enter(self) -> None:
        """Take a place. Errors: `Problem` of `queue-full` or `draining`."""
        if self.draining:
            raise Problem("draining", retry_after_s=5)
        if self.used >= self._most:
            raise Problem("queue-full", f"{self._most} requests are at work")
        self.used += 1
        self._metrics.inflight.set(self.used)

    def leave(self) -> None:
        """Give it back."""
        self.used -= 1
        self._metrics.inflight.set(self.used)


@final
class Rooms:
    """ASGI middleware: 503 beyond the room, or while the service stops. `free`: addresses that need none, such as probes."""

    def __init__(self, app: ASGIApp, room: Room, free: frozenset[str]) -> None:
        self._app, self._room, self._free = app, room, free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass with a place, which is given back whatever happens."""
        if scope["type"] != "http" or scope["path"] in self._free:
            await self._app(scope, receive, send)
            return
        self._room.enter()
        try:
            await self._app(scope, receive, send)
        finally:
            self._room.leave()
