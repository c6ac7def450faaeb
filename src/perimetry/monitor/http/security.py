"""Who may reach what: names of the host, browsers of other origins, tokens, sessions, forms, rates.

Without tokens everybody on this machine may do all; what keeps web pages out then are the name of the host and the origin.
"""

import asyncio
import hmac
from collections.abc import Mapping
from typing import Final, NamedTuple, final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perimetry.monitor.http.calls import header
from perimetry.monitor.http.forms import FORM, fields_of
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.rates import Rates
from perimetry.monitor.http.tokens import SCOPES, Key, Session, Sessions, Tokens
from perimetry.monitor.problems import Problem

__all__ = ["COOKIE", "PROXIED", "Access", "Guard", "host_name", "session_cookie"]

COOKIE: Final = "perimetry_session"
PROXIED: Final = ("/v1/chat/completions", "/v1/completions")
"""Addresses that are passed on to the model behind the proxy."""
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Access(NamedTuple):
    """Which addresses want what; one that is not named wants a token of any scope."""

    scopes: Mapping[str, str]
    """Scope by address."""
    free: frozenset[str]
    """Probes: nothing is wanted, and no rate counts."""
    open: frozenset[str]
    """Pages that say themselves what they show to whom: a token is looked for, not wanted."""
    prefixes: tuple[str, ...] = ()
    """As `open`, for all addresses that begin so."""


def host_name(value: str) -> str:
    """The name in a Host header, without port.

    >>> host_name("LOCALHOST:8765"), host_name("[::1]:80"), host_name("127.0.0.1")
    ('localhost', '[::1]', '127.0.0.1')
    """
    value = value.strip().lower()
    if value.startswith("["):
        return value.partition("]")[0] + "]"
    return value.partition(":")[0]


def session_cookie(scope: Scope) -> str | None:
    """The value of the session's cookie."""
    for part in (header(scope, b"cookie") or "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return None


def _shown(scope: Scope) -> str | None:
    """The token that a request shows. Beside the proxy `Authorization` belongs to the model behind it."""
    own = header(scope, b"x-perimetry-key")
    if own is not None or scope["path"] in PROXIED:
        return own
    named = header(scope, b"x-api-key")
    if named is not None:
        return named
    scheme, _, token = (header(scope, b"authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _place_of(origin: str) -> str:
    """Host and port of an origin; empty for one that is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


@final
class Guard:
    """ASGI middleware: lets through who may."""

    def __init__(
        self, app: ASGIApp, config: HttpConfig, tokens: Tokens | None, sessions: Sessions, access: Access
    ) -> None:
        self._app, self._config, self._tokens = app, config, tokens
        self._sessions, self._access = sessions, access
        self._rates = Rates(config.limits.rate_per_s, config.limits.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass, or raise `Problem` of `misdirected`, `forbidden`, `unauthorized` or `rate-limited`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._check_host(scope)
        self._check_origin(scope)
        key, session = self._who(scope)
        scope["state"] |= {"key": key, "session": session}
        path = scope["path"]
        if path not in self._access.free:
            relaxed = path in self._access.open or path.startswith(self._access.prefixes)
            if key is None and not relaxed:
                raise Problem("unauthorized")
            wanted = self._access.scopes.get(path)
            if key is not None and wanted is not None and wanted not in key.scopes:
                raise Problem("forbidden", f"the scope {wanted} is wanted")
            name = f"key:{key.name}" if key is not None and self._tokens is not None else _address(scope)
            self._rates.take(name, asyncio.get_running_loop().time())
        if session is not None and scope["method"] not in _SAFE:
            receive = await _check_form(scope, receive, session)
        await self._app(scope, receive, send)

    def _check_host(self, scope: Scope) -> None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        name = host_name(hosts[0].decode("latin-1")) if len(hosts) == 1 else ""
        if "*" not in self._config.hosts and name not in {host.lower() for host in self._config.hosts}:
            raise Problem("misdirected", "add the name to hosts, if it is yours")

    @staticmethod
    def _check_origin(scope: Scope) -> None:
        site, origin = header(scope, b"sec-fetch-site"), header(scope, b"origin")
        host = (header(scope, b"host") or "").strip().lower()
        if origin is not None and _place_of(origin) != host:
            raise Problem("forbidden", "requests from pages of other origins are not answered")
        if site is None or site in ("same-origin", "none"):
            return
        # A link from elsewhere may open a page: it carries no cookie of ours, and nobody there can read the answer.
        opens = scope["method"] == "GET" and header(scope, b"sec-fetch-mode") == "navigate"
        if not (opens and header(scope, b"sec-fetch-dest") == "document"):
            raise Problem("forbidden", "requests from pages of other sites are not answered")

    def _who(self, scope: Scope) -> tuple[Key | None, Session | None]:
        if self._tokens is None:
            return Key("local", SCOPES), None
        token = _shown(scope)
        if token is not None:
            return self._tokens.find(token), None
        cookie = session_cookie(scope)
        session = None if cookie is None else self._sessions.find(cookie)
        return (None, None) if session is None else (session.key, session)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return f"address:{client[0] if client else ''}"


async def _check_form(scope: Scope, receive: Receive, session: Session) -> Receive:
    """A request that a cookie vouches for must also carry what only our own pages know: in a header, or in a field of its form."""
    given = header(scope, b"x-csrf-token")
    body = None
    if given is None and (header(scope, b"content-type") or "").partition(";")[0].strip().lower() == FORM:
        body = await _read(receive)
        given = fields_of(body).get("csrf")
    if not hmac.compare_digest((given or "").encode("utf-8", "replace"), session.csrf.encode()):
        raise Problem("forbidden", "the form has no valid csrf field; load the page again")
    return receive if body is None else _again(body, receive)


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    left = [body]

    async def read() -> Message:
        return {"type": "http.request", "body": left.pop(), "more_body": False} if left else await receive()

    return read
