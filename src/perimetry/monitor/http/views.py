"""What the service says of itself and of its traffic, as Pydantic models."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from perimetry.monitor.http.schemas import Artifact, P, Saying, maybe

__all__ = [
    "Alive",
    "Budget",
    "Capabilities",
    "Cusum",
    "Drift",
    "DriftTest",
    "Event",
    "EventList",
    "Group",
    "ProblemBody",
    "Ready",
    "Rising",
]


class Group(Saying):
    """A group of the calibration, at the default false-alarm rate."""

    name: str
    n: int
    alpha_min: float
    threshold: float | None
    fpr_interval: Annotated[list[float], Field(min_length=2, max_length=2)]


class Capabilities(Saying):
    """What this service can do; no secrets."""

    api: Literal["1"]
    version: str
    artifact: Artifact
    groups: list[Group]
    alpha_default: float
    mode: Literal["alert", "block"]
    on_error: Literal["open", "closed"] = maybe("closed")
    limits: dict[str, Any]
    adapters: dict[str, bool]


class Event(Saying):
    """A text that was scored."""

    id: int
    request_id: str = maybe("")
    ts: str
    prompt_hmac: str
    n_chars: int
    n_tokens: int
    score: float
    p_value: P
    flagged: bool
    group: str
    outcome: str
    adapter: str = maybe("")
    artifact: str
    concepts: list[Any] = maybe([])
    text: str | None = maybe(None)


class EventList(Saying):
    """A page of events, ascending by id."""

    events: list[Event]
    next: int | None
    dropped_total: int


class DriftTest(Saying):
    """One test of a window against the calibration."""

    name: Literal["ks", "mmd", "group_mix"]
    statistic: float
    p_value: float
    effect: float
    effect_ci95: list[float]
    over: bool
    effect_name: str = maybe("")


class Cusum(Saying):
    """The cumulative sum of log p-values."""

    value: float
    threshold: float
    alarm: bool


class Budget(Saying):
    """How often a window may raise a false alarm, and how often one did."""

    windows_per_false_alarm: float
    observed: float


class Rising(Saying):
    """A concept that fires more often than it did."""

    index: int
    rate_now: float
    rate_ref: float


class Drift(Saying):
    """How the traffic of late differs from the calibration."""

    as_of: str
    state: Literal["warming", "ok", "watch", "alarm"]
    window: int
    reference_n: int
    tests: list[DriftTest]
    cusum: Cusum
    budget: Budget
    rising_concepts: list[Rising] = maybe([])
    gates: dict[str, float] = maybe({})
    """How far each effect must go before a test counts."""


class Alive(Saying):
    """The event loop answers."""

    status: Literal["ok"]


class Ready(Saying):
    """Everything is well that a score rests on."""

    status: Literal["ready"]
    checks: dict[str, str]


class ProblemBody(Saying):
    """A refusal (RFC 9457). Never repeats what came in."""

    type: Annotated[str, StringConstraints(pattern="^urn:perimetry:problem:")]
    title: str
    status: int
    detail: str = maybe("")
    instance: str
    errors: list[dict[str, Any]] = maybe([])
    """Place and kind of each thing that is wrong with the body."""
    retry_after_s: int = maybe(1)
    checks: dict[str, str] = maybe({})
    code: int = maybe(500)
    message: str = maybe("")
