"""What the service takes and gives, as Pydantic models: the source of `openapi.json`.

Requests to our own routes are strict: unknown members, numbers in quotes and null are refused. Numbers are finite. Offsets are
Unicode code points. A member that was not asked for is left out of an answer, not null.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

__all__ = [
    "Artifact",
    "Concept",
    "Fdr",
    "Id",
    "Msg",
    "Partial",
    "Score",
    "ScoreBatch",
    "ScoreRequest",
    "StreamRequest",
    "Timing",
    "Token",
    "Usage",
    "maybe",
]

M = TypeVar("M", bound="Asking")

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
P = Annotated[float, Field(gt=0, le=1)]
Some = Annotated[str, StringConstraints(min_length=1)]
Alpha = Annotated[float, Field(gt=0, le=0.5)]
Millis = Annotated[int, Field(ge=100, le=60000)]
Meta = Annotated[str, StringConstraints(max_length=256)]


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def maybe(placeholder: Any, **more: Any) -> Any:
    """A member that may be absent: whether it is there says `model_fields_set`, not its value."""
    return Field(placeholder, json_schema_extra=_without_default, **more)


class Asking(BaseModel):
    """Base of requests."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Saying(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, populate_by_name=True, serialize_by_alias=True)


class Msg(Asking):
    """A message of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Some


def _one_of(*names: str) -> Any:
    """Extra of a schema: just one of these members is there."""
    return {"oneOf": [{"required": [name]} for name in names]}


def _require_one(value: M, *names: str) -> M:
    if len(value.model_fields_set & set(names)) != 1:
        raise ValueError(f"just one of {', '.join(names)} is wanted")
    return value


class ScoreRequest(Asking):
    """A text, a chat, or several texts that are judged together."""

    model_config = ConfigDict(json_schema_extra=_one_of("input", "messages", "inputs"))

    input: Some = maybe("")
    """Raw text."""
    messages: Annotated[list[Msg], Field(min_length=1, max_length=64)] = maybe([])
    """A chat, written out with the template of the model."""
    inputs: Annotated[list[Some], Field(min_length=1, max_length=32)] = maybe([])
    """Raw texts; all are scored, or none."""
    model: str = maybe("")
    """The model that is meant; another than the one that is watched is refused."""
    detail: Literal["none", "tokens", "concepts"] = "none"
    """How much is said; `concepts` includes tokens."""
    top_concepts: Annotated[int, Field(ge=1, le=64)] = 8
    """Concepts at most."""
    alpha: Alpha = maybe(0.01)
    """False-alarm rate; without it that of the configuration."""
    timeout_ms: Millis = 10000
    """Time from the end of the request's head to the answer."""
    request_id: Id = maybe("")
    """What the event is known by."""
    metadata: Annotated[dict[str, Meta], Field(max_length=8)] = maybe({})
    """Kept with the event; `synthetic` keeps it out of drift."""

    @model_validator(mode="after")
    def _one(self) -> "ScoreRequest":
        return _require_one(self, "input", "messages", "inputs")


class StreamRequest(Asking):
    """A text or a chat whose parts are told as they are done."""

    model_config = ConfigDict(json_schema_extra=_one_of("input", "messages"))

    input: Some = maybe("")
    """Raw text."""
    messages: Annotated[list[Msg], Field(min_length=1, max_length=64)] = maybe([])
    """A chat."""
    flush_tokens: Annotated[int, Field(ge=16, le=1024)] = 128
    """Tokens of a part."""
    timeout_ms: Millis = 30000
    """Time to the last part."""
    alpha: Alpha = maybe(0.01)
    """False-alarm rate; without it that of the configuration."""

    @model_validator(mode="after")
    def _one(self) -> "StreamRequest":
        return _require_one(self, "input", "messages")


class Token(Saying):
    """One token; `score` is null where it does not count."""

    i: int
    start: int
    end: int
    text: str
    special: bool
    score: float | None


class Concept(Saying):
    """A concept that speaks for the score."""

    index: int
    label: str | None = maybe(None)
    energy: float
    count: int
    max_token: int
    url: str | None = maybe(None)
    contexts: list[str] = maybe([])
    """Clean passages on which it fires hardest."""


class Artifact(BaseModel):
    """What made the score."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, str] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]

    model_rev: str
    tap: str
    sae_sha256: str
    calibration_sha256: str
    dtype: str
    backend: str


class Usage(Saying):
    """What was read."""

    tokens: int
    scored_tokens: int
    truncated: Literal[False]


class Timing(Saying):
    """Where the time went."""

    queue: float = maybe(0.0)
    forward: float = maybe(0.0)
    total: float = maybe(0.0)


class Score(Saying):
    """How far one text lies outside what the model knows."""

    id: Id
    created: datetime
    score: float
    p_value: P
    neg_log10_p: float = maybe(0.0)
    flagged: bool
    alpha: float
    fpr_interval: Annotated[list[float], Field(min_length=2, max_length=2)]
    """95 % interval on the realised false-alarm rate at this alpha, over calibration sets of this size."""
    group: str
    group_fallback: bool
    n_calibration: Annotated[int, Field(ge=1)]
    tokens: list[Token] = maybe([])
    concepts: list[Concept] = maybe([])
    usage: Usage
    artifact: Artifact
    timing_ms: Timing
    event: Literal["queued", "committed", "dropped", "off"]


class Fdr(Saying):
    """The texts of one request judged together (Benjamini and Hochberg)."""

    method: Literal["BH"]
    q: float
    rejected: list[int]


class ScoreBatch(Saying):
    """Several texts."""

    results: list[Score]
    fdr: Fdr


class Partial(Saying):
    """A part of a text; without p-value, as prefixes were not calibrated."""

    seq: int
    begin: int = Field(alias="from")
    end: int = Field(alias="to")
    tokens: list[Token]
    running_score: float
