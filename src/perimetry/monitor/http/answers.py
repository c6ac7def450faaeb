"""What each address may answer, for `openapi.json`, and answers as bytes."""

from typing import Any, Final

from pydantic import BaseModel
from starlette.responses import Response

from perimetry.monitor.http.refusals import MEDIA
from perimetry.monitor.problems import PROBLEMS

__all__ = ["BODY", "EVERYWHERE", "SCORING", "documented", "events", "said"]

EVERYWHERE: Final = (
    "unauthorized",
    "forbidden",
    "misdirected",
    "rate-limited",
    "headers",
    "internal",
    "queue-full",
    "draining",
)
"""What any address may refuse with."""

BODY: Final = ("malformed", "slow-body", "too-large", "media-type", "invalid")
"""What an address that takes a body may refuse with."""

SCORING: Final = (
    "too-many-tokens",
    "nothing-to-score",
    "alpha-unreachable",
    "non-finite",
    "loading",
    "restarting",
    "out-of-memory",
    "deadline-unreachable",
    "deadline",
)
"""What scoring may refuse with."""


def documented(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """Problems as answers of an address, those of one status together."""
    by_status: dict[int, list[str]] = {}
    for kind in kinds:
        by_status.setdefault(PROBLEMS[kind][0], []).append(kind)
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": "Problem: " + ", ".join(sorted(names)) + ".", "content": {MEDIA: {"schema": schema}}}
        for status, names in sorted(by_status.items())
    }


def events(*names: str) -> dict[str, Any]:
    """An answer of server-sent events, as each of them is read: its name, where it has one, and its data, which is JSON."""
    parts: dict[str, Any] = {"data": {"type": "string", "contentMediaType": "application/json"}}
    parts |= {"event": {"enum": list(names)}, "id": {"type": "string"}}
    return {"text/event-stream": {"schema": {"type": "object", "required": ["data"], "properties": parts}}}


def said(model: BaseModel, status: int = 200) -> Response:
    """A model as an answer; members that were never set are left out."""
    body = model.model_dump_json(exclude_unset=True, by_alias=True)
    return Response(body, status, media_type="application/json")
