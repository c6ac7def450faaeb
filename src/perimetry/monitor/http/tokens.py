"""Who may ask: tokens, held as hashes only, and sessions of browsers."""

import hashlib
import hmac
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, final

from perimetry.errors import ConfigError, MissingFile
from perimetry.monitor.http.ids import valid_name

__all__ = ["SCOPES", "Key", "Session", "Sessions", "Tokens", "new_token", "read_tokens"]

SCOPES: Final = frozenset({"score", "read", "metrics"})
"""What a token may be good for: scoring; events, drift and the page; metrics."""

_HASHED = "sha256:"
_LEAST = 43
"""Letters of 32 random bytes in URL-safe base64."""


class Key(NamedTuple):
    """Who asks."""

    name: str
    """Its name in the file; the rate limit counts by it."""
    scopes: frozenset[str]
    """What it may do."""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def new_token() -> tuple[str, str]:
    """A token of 32 random bytes, and its hash as it stands in a file of tokens.

    >>> token, hashed = new_token()
    >>> len(token), hashed[:7], len(hashed)
    (43, 'sha256:', 71)
    """
    token = secrets.token_urlsafe(32)
    return token, _HASHED + _digest(token).hex()


@final
class Tokens:
    """Every token there is, by hash."""

    def __init__(self, entries: Sequence[tuple[Key, bytes]]) -> None:
        self._entries = tuple(entries)

    def find(self, token: str) -> Key | None:
        """Whose token it is. Every hash is compared, in constant time, so that the time tells nothing."""
        wanted, found = _digest(token), None
        for key, digest in self._entries:
            if hmac.compare_digest(wanted, digest):
                found = key
        return found


def _entry(line: str, where: str) -> tuple[Key, bytes]:
    parts = line.split()
    if len(parts) != 3:
        raise ConfigError(f"{where}: {len(parts)} words; three are wanted: name, scopes, token (or sha256:HEX)")
    name, scopes, token = parts
    if not valid_name(name):
        raise ConfigError(f"{where}: the name has other letters than A-Z a-z 0-9 . _ - or more than 64; choose another")
    wanted = frozenset(scopes.split(","))
    if not wanted <= SCOPES:
        raise ConfigError(f"{where}: unknown scope; known: {', '.join(sorted(SCOPES))}, joined by commas")
    if token.startswith(_HASHED):
        try:
            digest = bytes.fromhex(token.removeprefix(_HASHED))
        except ValueError:
            digest = b""
        if len(digest) != 32:
            raise ConfigError(f"{where}: the hash is not 64 hexadecimal digits; make it again")
        return Key(name, wanted), digest
    if len(token) < _LEAST:
        raise ConfigError(
            f"{where}: the token has {len(token)} letters; at least {_LEAST} are wanted (32 random bytes)"
        )
    return Key(name, wanted), _digest(token)


def read_tokens(path: Path) -> Tokens:
    """Tokens of a file: a line each, name, scopes, and the token or its hash; blank lines and # comments are skipped.

    Tokens themselves are forgotten as they are read. Errors: `MissingFile`; `ConfigError`, which never shows a token.
    """
    if not path.is_file():
        raise MissingFile(f"no file of tokens {path}; check the path")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text in UTF-8; make the file of tokens again") from None
    found = [
        _entry(line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not found:
        raise ConfigError(f"{path} holds no token; add a line: name, scopes, token")
    if len({key.name for key, _ in found}) != len(found):
        raise ConfigError(f"{path} holds the same name twice; the rate limit counts by names")
    return Tokens(found)


class Session(NamedTuple):
    """A browser that showed a token once."""

    key: Key
    """Whose it was."""
    csrf: str
    """What its forms must carry."""
    expires: float
    """When it ends, on the clock of `Sessions`."""


@final
class Sessions:
    """Browsers that showed a token; in memory, at most 1024, gone when the process ends."""

    def __init__(self, clock: Callable[[], float], seconds: float = 12 * 3600.0, most: int = 1024) -> None:
        """`clock`: ascending seconds."""
        self._clock, self.seconds, self._most = clock, seconds, most
        self._secret = os.urandom(32)
        self._open: OrderedDict[bytes, Session] = OrderedDict()

    def open(self, key: Key) -> tuple[str, Session]:
        """The value of a new cookie, and its session."""
        cookie = secrets.token_urlsafe(32)
        csrf = hmac.new(self._secret, cookie.encode(), hashlib.sha256).hexdigest()
        session = Session(key, csrf, self._clock() + self.seconds)
        self._open[_digest(cookie)] = session
        while len(self._open) > self._most:
            self._open.popitem(last=False)
        return cookie, session

    def find(self, cookie: str) -> Session | None:
        """The session of a cookie, if it has not ended."""
        session = self._open.get(_digest(cookie))
        if session is not None and session.expires <= self._clock():
            self.close(cookie)
            return None
        return session

    def close(self, cookie: str) -> None:
        """End it."""
        self._open.pop(_digest(cookie), None)
