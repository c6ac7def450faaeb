"""The outermost layer: every request gets a name, every answer its headers, every fault becomes a problem, once.

Logs hold method, route, status, time and name of a request; of a fault its type and where it arose, never its message, which may
hold a prompt.
"""

import asyncio
import contextlib
import logging
from typing import final

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perimetry.monitor.http.calls import TRACEPARENT, Call, ClientGone, header, where
from perimetry.monitor.http.ids import Names, valid_name
from perimetry.monitor.http.metrics import Metrics
from perimetry.monitor.http.refusals import refusal
from perimetry.monitor.problems import Problem

__all__ = ["CSP", "Edge"]

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_ALWAYS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
_DISCARD = 64 * 2**10
"""Bytes of a body that are read although nobody wants them."""
_DISCARD_S = 0.5
"""Seconds that this may take."""
_PROBES = {"/healthz", "/health", "/readyz", "/metrics"}
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_log = logging.getLogger("perimetry.monitor.http")


def _body_length(scope: Scope) -> int | None:
    """Bytes of a body as they are declared; None where only its end will tell."""
    if header(scope, b"transfer-encoding") is not None:
        return None
    declared = header(scope, b"content-length") or "0"
    return int(declared) if declared.isascii() and declared.isdigit() else None


def _route(scope: Scope) -> str:
    """Template of the route that answered; addresses that clients made up are all the same."""
    return getattr(scope.get("route"), "path", "other")


@final
class Edge:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, names: Names, metrics: Metrics) -> None:
        self._app, self._names, self._metrics = app, names, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = header(scope, b"x-request-id")
        name = given if given is not None and valid_name(given) else self._names.fresh()
        call = Call(name, asyncio.get_running_loop().time())
        length = _body_length(scope)
        call.body_read, call.small_body = length == 0, length is not None and length <= _DISCARD
        scope.setdefault("state", {})["call"] = call
        TRACEPARENT.set(header(scope, b"traceparent"))
        try:
            read = self._reading(call, receive)
            await self._answer(scope, read, self._saying(call, send, read), call)
        except asyncio.CancelledError:
            call.outcome = "cancelled"
            raise
        finally:
            self._count(scope, call)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, call: Call) -> None:
        try:
            await self._app(scope, receive, send)
            return
        except Problem as raised:
            problem = raised
        except (ClientGone, ClientDisconnect):
            call.outcome = "cancelled"
            return
        except Exception as fault:
            _log.error("fault %s in %s: %s", type(fault).__name__, call.name, where(fault))
            problem = Problem("internal")
        call.outcome = problem.kind
        if call.status is None:
            await refusal(problem, call.name, scope["path"])(scope, receive, send)

    @staticmethod
    async def _discard(call: Call, receive: Receive) -> None:
        """Read what is left of a small body: closing with unread bytes resets the connection, and the answer may be lost."""
        left = _DISCARD
        with contextlib.suppress(TimeoutError, Problem):
            async with asyncio.timeout(_DISCARD_S):
                while left > 0 and not call.body_read:
                    left -= len((await receive()).get("body", b""))

    @staticmethod
    def _reading(call: Call, receive: Receive) -> Receive:
        async def read() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                call.body_read = True
            return message

        return read

    def _saying(self, call: Call, send: Send, receive: Receive) -> Send:
        async def say(message: Message) -> None:
            if message["type"] == "http.response.start":
                if call.small_body:
                    await self._discard(call, receive)
                call.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = call.name
                for key, value in _ALWAYS.items():
                    headers[key] = value
                headers.setdefault("cache-control", "no-store")
                if not call.body_read:
                    # The rest of the body would be read and thrown away for as long as the client likes.
                    headers["connection"] = "close"
            await send(message)

        return say

    def _count(self, scope: Scope, call: Call) -> None:
        took = asyncio.get_running_loop().time() - call.began
        route, method = _route(scope), scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._metrics.requests.labels(route, call.outcome).inc()
        self._metrics.duration.labels(route).observe(took)
        # Probes come every few seconds, for ever; one that is refused is worth a line.
        level = logging.DEBUG if route in _PROBES and call.status == 200 else logging.INFO
        status, ms = call.status or "-", 1000 * took
        _log.log(level, "%s %s %s %s %.1f ms %s", method, route, status, call.outcome, ms, call.name)
