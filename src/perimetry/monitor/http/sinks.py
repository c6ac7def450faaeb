"""What the HTTP layer asks of whatever keeps events and watches drift. Nothing here knows of a database."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from perimetry.monitor.engine import ConceptScored

__all__ = [
    "DriftSource",
    "EventPage",
    "EventQuery",
    "EventSink",
    "Gap",
    "Listener",
    "NewEvent",
    "NoSink",
    "Outcome",
    "Slice",
    "Stored",
]

Outcome = Literal["queued", "committed", "dropped", "off"]
"""What became of an event: waiting for the disk, safe, lost, or not kept at all."""

Stored = Mapping[str, Any]
"""An event that was kept, in the words of the contract: `id` (ascending integer), `request_id`, `ts` (ISO 8601, UTC), `prompt_hmac` (hex),
`n_chars`, `n_tokens`, `score`, `p_value`, `flagged`, `group`, `outcome`, `adapter`, `artifact`, `concepts`, `text`."""


class NewEvent(NamedTuple):
    """A text that was scored, on its way to the store."""

    uuid: str
    """What its score is known by; the same event handed in twice is kept once."""
    request_id: str
    """The request that it came with."""
    created: datetime
    """When it was scored, UTC."""
    adapter: str
    """Which contract it came by: `score`, `stream`, `detector`, `litellm`, `proxy`, `page`."""
    text: str
    """The text that was scored, messages joined by line ends. Kept only where the store was told to; else hashed and forgotten."""
    n_tokens: int
    """Tokens, special ones too."""
    score: float
    """Of the main detector."""
    p_value: float
    """Its p-value."""
    flagged: bool
    """Whether the p-value is at most the rate that was asked for."""
    group: str
    """Group of the calibration."""
    outcome: str
    """`ok`: only rows that were scored become events."""
    artifact: Mapping[str, str]
    """What made the score."""
    concepts: Sequence[ConceptScored]
    """Concepts that speak for it, where they were asked for."""
    queue_ms: float
    """Time in the queue."""
    forward_ms: float
    """Time of its batch in the model."""
    metadata: Mapping[str, str]
    """What the client said of it; `synthetic` keeps it out of drift."""
    summary: tuple[float, ...] | None = None
    """What drift is judged by, as in `Scored`."""


class EventQuery(NamedTuple):
    """Which events are wanted, ascending by id."""

    since: int | None = None
    """Only ids above this one."""
    begin: datetime | None = None
    """Only from then on."""
    end: datetime | None = None
    """Only before."""
    flagged: bool | None = None
    """Only flagged ones, or only the others."""
    group: str | None = None
    """Only of this group."""
    limit: int = 100
    """How many at most."""


class EventPage(NamedTuple):
    """A page of events."""

    events: Sequence[Stored]
    """Ascending by id."""
    next: int | None
    """`since` of the page that follows; None at the end."""
    dropped_total: int
    """Events that were lost, since the store was made."""


class Gap(NamedTuple):
    """A listener was too slow."""

    missed: int
    """How many events it did not get."""


class Slice(NamedTuple):
    """Sums over a stretch of time, all groups together. What was marked as synthetic does not count."""

    begin: datetime
    """Its first minute, UTC."""
    n: int
    """Texts that were scored."""
    flagged: int
    """Those that were flagged."""
    histogram: Sequence[int]
    """How many p-values lie in each of 20 bins of equal width; one on an edge belongs to the lower bin."""


@runtime_checkable
class EventSink(Protocol):
    """Keeps events. Nothing of it may block the event loop, and no failure of it may cost a score."""

    async def put(self, event: NewEvent) -> Outcome:
        """Keep one. Returns at once, or, where commits are waited for, when it is safe. Raises nothing: a failure is `dropped`."""
        ...

    async def page(self, query: EventQuery) -> EventPage:
        """Events that were kept. Errors: `Problem` of `internal` where the store cannot be read."""
        ...

    async def traffic(self, begin: datetime, minutes: int) -> Sequence[Slice]:
        """Sums since `begin`, `minutes` together, ascending; stretches without events are left out. Errors: as `page`."""
        ...

    async def tail(self, after: int | None) -> AsyncIterator[Stored | Gap]:
        """Events from now on, as they are kept; with `after` first those above that id, at most 1000. Ends when the service stops.

        The iterator has `aclose`, which gives the place back. Errors: `Problem` of `subscribers` where all places are taken.
        """
        ...

    def checks(self) -> Mapping[str, str]:
        """Each thing that must be well before the service is ready: "ok", or what is wrong. Empty where it does not matter."""
        ...


@runtime_checkable
class DriftSource(Protocol):
    """Watches the traffic."""

    async def current(self) -> Mapping[str, Any]:
        """What is known now, in the words of the contract. Errors: `Problem` of `loading`, `internal`."""
        ...

    async def acknowledge(self) -> bool:
        """Somebody has seen the alarm: the cumulative sum begins anew, and windows in a row do. Whether that is kept. Errors: as `current`."""
        ...


@runtime_checkable
class Listener(Protocol):
    """Hears of every text that was scored, and of every request that could not be, on the event loop and in the context of the request.

    Neither may wait. What it raises is logged and costs nothing else.
    """

    def scored(self, event: NewEvent, alpha: float) -> None:
        """A text was scored and judged at this false-alarm rate."""
        ...

    def failed(self, adapter: str, alpha: float, kind: str) -> None:
        """The texts of a request were to be scored and were not. `adapter`: as of events. `kind`: of `PROBLEMS`."""
        ...


class NoSink:
    """Keeps nothing."""

    async def put(self, event: NewEvent) -> Outcome:  # noqa: ARG002
        """Forget it."""
        return "off"

    async def page(self, query: EventQuery) -> EventPage:  # noqa: ARG002
        """No events."""
        return EventPage((), None, 0)

    async def traffic(self, begin: datetime, minutes: int) -> Sequence[Slice]:  # noqa: ARG002
        """No sums."""
        return ()

    async def tail(self, after: int | None) -> AsyncIterator[Stored | Gap]:  # noqa: ARG002
        """An iterator that has ended."""
        return _nothing()

    def checks(self) -> Mapping[str, str]:
        """Nothing to check."""
        return {}


async def _nothing() -> AsyncIterator[Stored | Gap]:
    for event in ():
        yield event
