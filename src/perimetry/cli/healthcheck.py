"""`perimetry healthcheck`: does the service take work? For the probe of a container: asks by the standard library alone."""

import http.client
import json as plain
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from cyclopts import Parameter

from perimetry.cli.common import Json, emit

__all__ = ["healthcheck"]

READY = "http://127.0.0.1:8765/readyz"
_MOST = 65_536
"""Bytes of an answer that are read."""


class _Found(NamedTuple):
    """What was answered."""

    status: int | None
    """Status of the answer; None where there was none."""
    checks: Mapping[str, str]
    """Checks that the answer names."""
    why: str
    """What is wrong besides the checks; empty where nothing is."""


def healthcheck(
    *,
    url: Annotated[str, Parameter(help="Address to ask.")] = READY,
    timeout: Annotated[float, Parameter(help="Seconds to wait for an answer.")] = 5.0,
    json: Json = False,
) -> int:
    """Ask a running service whether it is ready, and name the checks that fail.

    Exit code 0 when it answers 200, 1 when it answers anything else or not at all.
    """
    found = _ask(_address(url), timeout)
    failing = {name: state for name, state in found.checks.items() if state != "ok"}
    ready = found.status == 200
    value: dict[str, Any] = {"ready": ready, "status": found.status, "failing": failing, "why": found.why}

    def human() -> None:
        if ready:
            print("ready")  # noqa: T201
            return
        parts = [f"{name}: {state}" for name, state in failing.items()]
        print(_shown("not ready: " + "; ".join(parts or [found.why])))  # noqa: T201

    emit(value, json, human)
    return 0 if ready else 1


def _address(url: str) -> SplitResult:
    from perimetry.errors import UsageError

    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass
    raise UsageError(f"--url is no address of a service; one such as {READY} is wanted")


def _ask(address: SplitResult, timeout: float) -> _Found:
    """One request, past any proxy of the environment, that follows nothing."""
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.hostname or "", address.port, timeout=timeout)
    target = (address.path or "/") + (f"?{address.query}" if address.query else "")
    try:
        connection.request("GET", target, headers={"accept": "application/json", "connection": "close"})
        answer = connection.getresponse()
        status, body = answer.status, answer.read(_MOST)
    except (OSError, http.client.HTTPException) as error:
        return _Found(None, {}, f"no answer: {type(error).__name__}")
    finally:
        connection.close()
    checks = _checks(body)
    return _Found(status, checks, "" if status == 200 else f"status {status}")


def _checks(body: bytes) -> dict[str, str]:
    """The checks in an answer; none where it holds none."""
    try:
        document = plain.loads(body)
    except (ValueError, RecursionError):
        return {}
    found = document.get("checks") if isinstance(document, dict) else None
    return {str(name): str(state) for name, state in found.items()} if isinstance(found, dict) else {}


def _shown(text: str) -> str:
    """Text of another process, fit for a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
