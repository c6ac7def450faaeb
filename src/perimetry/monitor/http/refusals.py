"""Problems as answers. A body never repeats what came in: places name our own members only, and kinds are pydantic's."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from perimetry.monitor.http.calls import call_of
from perimetry.monitor.problems import Problem

__all__ = ["MEDIA", "place", "refusal", "refuse_invalid", "refuse_status"]

MEDIA = "application/problem+json"
CODED = "/api/v1/text/"
"""Addresses of the detector API, whose clients read `code` and `message`."""


def refusal(problem: Problem, instance: str, path: str, more: Mapping[str, str] | None = None) -> Response:
    """The answer to a request for `path`, with the headers that belong to its status."""
    document = problem.document(instance)
    if path.startswith(CODED):
        document |= {"code": problem.status, "message": problem.title}
    headers = dict(more or {})
    if problem.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(problem.retry_after_s)))
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(json.dumps(document, allow_nan=False), problem.status, headers, media_type=MEDIA)


def place(location: Iterable[Any], kind: str) -> str:
    """Where something is wrong, without what the client made up: names of unknown members and keys are left out.

    >>> place(("body", "messages", 3, "content"), "missing")
    'body.messages.3.content'
    >>> place(("body", "a secret"), "extra_forbidden"), place(("body", "metadata", "a secret"), "string_type")
    ('body', 'body.metadata')
    """
    steps = list(location)
    if kind == "extra_forbidden":
        steps = steps[:-1]
    if "metadata" in steps:
        steps = steps[: steps.index("metadata") + 1]
    return ".".join(str(step) for step in steps)


async def refuse_invalid(request: Request, error: Exception) -> Response:
    """What to say to a body or a query of another form."""
    assert isinstance(error, RequestValidationError)
    wrong = [{"location": place(e["loc"], e["type"]), "kind": e["type"]} for e in error.errors()[:16]]
    return _said(request, Problem("invalid", errors=wrong))


async def refuse_status(request: Request, error: Exception) -> Response:
    """What to say where the routing, or the framework, refuses."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, Problem):
        return _said(request, error.__cause__)
    kind = {400: "malformed", 404: "not-found", 405: "method", 413: "too-large", 415: "media-type"}.get(
        error.status_code
    )
    allow = {} if error.headers is None else {k: v for k, v in error.headers.items() if k.lower() == "allow"}
    return _said(request, Problem(kind or "internal"), allow)


def _said(request: Request, problem: Problem, more: Mapping[str, str] | None = None) -> Response:
    call = call_of(request)
    call.outcome = problem.kind
    return refusal(problem, call.name, request.scope["path"], more)
