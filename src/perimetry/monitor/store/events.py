"""One event: what the service remembers of one prompt."""

import json
import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

__all__ = ["ConceptSeen", "Event", "Stored", "event_of_json", "fault_of", "json_of_event"]

HMAC_BYTES: Final = 16
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MOST: Final = 2**63 - 1


class ConceptSeen(NamedTuple):
    """One concept that spoke for the score."""

    concept: int
    """Latent of the dictionary."""
    energy: float
    """What its firing adds to the score."""
    tokens: int
    """On how many tokens it fires."""
    max_token: int
    """The token on which it fires hardest."""


class Event(NamedTuple):
    """What is remembered of one prompt."""

    uuid: str
    """Its own name, a UUID; an event that comes twice is kept once."""
    ts_us: int
    """Microseconds since 1970."""
    request_id: str
    """What the request is known by."""
    artifact_id: str
    """The artifact that scored."""
    adapter: str
    """The way by which it came."""
    prompt_hmac: bytes
    """Of `prompt_hmac`: 16 bytes."""
    n_chars: int
    """Code points of the prompt."""
    n_tokens: int
    """Tokens of the prompt."""
    group_id: str
    """Group of the calibration."""
    score: float | None
    """Finite, higher = further; None where nothing was scored."""
    p_value: float | None
    """Above 0, at most 1; None where nothing was scored."""
    flagged: bool
    """Whether it was called outside."""
    outcome: str = "ok"
    """`ok`, or the kind of problem that came of it."""
    queue_us: int = 0
    """Microseconds in the queue."""
    forward_us: int = 0
    """Microseconds of its batch in the model."""
    summary: bytes | None = None
    """The vector that drift is judged by."""
    metadata: Mapping[str, str] = MappingProxyType({})
    """What the caller said of it."""
    concepts: tuple[ConceptSeen, ...] = ()
    """Loudest first."""
    text: str | None = None
    """The words: given in full, kept as the configuration says."""
    redacted: bool = False
    """Whether `text` has been redacted."""
    expires_us: int | None = None
    """When `text` goes, in microseconds since 1970."""


class Stored(NamedTuple):
    """An event that is in the database."""

    id: int
    """Its number: later ones are higher."""
    event: Event
    """The event."""


def fault_of(event: Event) -> str | None:
    """What keeps this event out of a database, or None. It names the field and never its content."""
    numbers = [event.ts_us, event.n_chars, event.n_tokens, event.queue_us, event.forward_us, event.expires_us or 0]
    numbers += [number for seen in event.concepts for number in (seen.concept, seen.tokens, seen.max_token)]
    wrong = {
        "uuid": not _UUID.fullmatch(event.uuid),
        "prompt_hmac": len(event.prompt_hmac) != HMAC_BYTES,
        "score": event.score is not None and not math.isfinite(event.score),
        "p_value": event.p_value is not None and not 0 < event.p_value <= 1,
        "a number": not all(0 <= number <= _MOST for number in numbers),
        "concepts": not all(math.isfinite(seen.energy) for seen in event.concepts)
        or len({seen.concept for seen in event.concepts}) != len(event.concepts),
    }
    return next((name for name, bad in wrong.items() if bad), None)


def json_of_event(event: Event) -> dict[str, Any]:
    """A plain object of strings and numbers: one line of a fragment."""
    found = event._asdict() | {
        "prompt_hmac": event.prompt_hmac.hex(),
        "summary": None if event.summary is None else event.summary.hex(),
        "metadata": dict(event.metadata),
        "concepts": [list(seen) for seen in event.concepts],
    }
    return {name: value for name, value in found.items() if value is not None}


def event_of_json(line: bytes | str) -> Event:
    """The event of a line. Errors: `ValueError`, `TypeError` or `KeyError` for what is none."""
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("the line is no object")
    summary = found.get("summary")
    members: dict[str, Any] = (
        {"score": None, "p_value": None}
        | found
        | {
            "prompt_hmac": bytes.fromhex(found["prompt_hmac"]),
            "summary": None if summary is None else bytes.fromhex(summary),
            "concepts": tuple(ConceptSeen(int(c), float(e), int(n), int(t)) for c, e, n, t in found["concepts"]),
        }
    )
    event = Event(**members)
    fault = fault_of(event)
    if fault is not None:
        raise ValueError(f"the event is not whole: {fault}")
    return event
