"""Bodies that are JSON: media type, bytes, depth, encoding, before any model sees them."""

import re
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pydantic_core
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from perimetry.monitor.http.http_config import Limits
from perimetry.monitor.problems import Problem

__all__ = ["JsonRequest", "JsonRoute", "deeper_than", "parse"]

_STRINGS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
"""A string, or what began as one and never ended; possessive, so that no body makes it try twice."""
_ROUND: Final = bytes.maketrans(b"{}", b"[]")
_REST: Final = bytes(set(range(256)) - set(b"[]{}"))


def deeper_than(body: bytes, depth: int) -> bool:
    """Whether brackets lie deeper within brackets than `depth`. Costs one pass over the body, and one over its brackets a level.

    >>> deeper_than(b'[[1, "]]]]"], {}]', 2), deeper_than(b"[[[]]]", 2)
    (False, True)
    """
    brackets = _STRINGS.sub(b"", body).translate(_ROUND, _REST) if body else b""
    for _ in range(depth):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def parse(body: bytes, depth: int) -> Any:
    """Strict JSON: UTF-8, no NaN, no lone surrogates, at most `depth` levels. Errors: `Problem` of `malformed`."""
    if deeper_than(body, depth):
        raise Problem("malformed", f"brackets do not match, or lie deeper than {depth} levels")
    try:
        return pydantic_core.from_json(body, allow_inf_nan=False, cache_strings="keys")
    except (ValueError, RecursionError):
        raise Problem("malformed", "the body is not JSON in UTF-8") from None


def _check_media(request: Request) -> None:
    kind, *options = (part.strip().lower() for part in request.headers.get("content-type", "").split(";"))
    charsets = {part.removeprefix("charset=").strip('"') for part in options if part.startswith("charset=")}
    if kind != "application/json" or charsets - {"utf-8"}:
        raise Problem("media-type", "application/json in UTF-8 is wanted")
    if "content-encoding" in request.headers:
        raise Problem("media-type", "no Content-Encoding is taken")


class JsonRequest(Request):
    """A request whose body is strict JSON."""

    async def json(self) -> Any:
        """The body, parsed once. Errors: `Problem` of `media-type`, `malformed`, and those of reading it."""
        if not hasattr(self, "_json"):
            _check_media(self)
            limits: Limits = self.app.state.config.limits
            self._json = parse(await self.body(), limits.json_depth)
        return self._json


class JsonRoute(APIRoute):
    """A route that checks its body before the framework reads it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Check, then handle."""
        inner = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            if takes_body:
                request = JsonRequest(request.scope, request.receive)
                await request.json()
            return await inner(request)

        return handle
