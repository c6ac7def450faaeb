"""What the service asks of whatever scores: rows in, readings out. Nothing here knows of HTTP, of a model or of torch."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

__all__ = ["ConceptScored", "Detail", "Engine", "GroupFacts", "Row", "Scored", "Some", "TokenScored"]

Detail = Literal["none", "tokens", "concepts"]
"""How much is said of a text: nothing more, each token, or tokens and concepts."""


class Row(NamedTuple):
    """One text that is to be scored."""

    messages: tuple[tuple[str, str], ...]
    """Role and content of each message of a chat; one with the role "" is plain text, without a template."""
    detail: Detail = "none"
    """How much is said of it."""
    top_concepts: int = 8
    """How many concepts at most."""


class TokenScored(NamedTuple):
    """One token."""

    start: int
    """Where it begins in the text that was given, in code points."""
    end: int
    """Where it ends."""
    text: str
    """The text between."""
    special: bool
    """True where it is not of the text, or does not count."""
    score: float | None
    """Score of the main detector, higher = further; None where it does not count."""


class ConceptScored(NamedTuple):
    """One concept that speaks for the score."""

    latent: int
    """Latent of the dictionary."""
    label: str | None
    """What it is called, if anybody said."""
    energy: float
    """What its firing adds to the score."""
    n_tokens: int
    """Tokens on which it fires."""
    max_token: int
    """The token on which it fires hardest."""
    contexts: tuple[str, ...]
    """Clean passages on which it fires hardest."""


class Scored(NamedTuple):
    """The reading of one row."""

    score: float
    """Of the main detector; finite."""
    p_value: float
    """At most 1, at least 1 / (n + 1)."""
    group: str
    """Group of the calibration that it was held against."""
    fallback: bool
    """True where its own group is too thin and all were used."""
    n_calibration: int
    """Calibration prompts of that group."""
    n_tokens: int
    """Tokens, special ones too."""
    scored_tokens: int
    """Tokens that count."""
    tokens: tuple[TokenScored, ...] = ()
    """Each token, where it was asked for."""
    concepts: tuple[ConceptScored, ...] = ()
    """Loudest first, where they were asked for."""
    queue_ms: float = 0.0
    """Time in the queue."""
    forward_ms: float = 0.0
    """Time of its batch in the model."""
    summary: tuple[float, ...] | None = None
    """What drift is judged by, as in `Baseline`; None where it is not known."""


class Some(NamedTuple):
    """A part of a reading, on the way to the whole."""

    seq: int
    """Number of the part, from 0."""
    begin: int
    """First token of it."""
    end: int
    """One past the last."""
    tokens: tuple[TokenScored, ...]
    """Those tokens."""
    running_score: float
    """Score of everything so far; without a p-value, as prefixes were not calibrated."""


class GroupFacts(NamedTuple):
    """What is known of a group of the calibration."""

    name: str
    """Its name."""
    n: int
    """Calibration prompts."""
    alpha_min: float
    """Least false-alarm rate that they can tell: 1 / (n + 1)."""
    threshold: float | None
    """Score from which on a prompt is flagged at the default rate; None where no score is."""
    fpr_low: float
    """Lower end of the 95 % interval on the realised false-alarm rate at the default rate."""
    fpr_high: float
    """Upper end."""


@runtime_checkable
class Engine(Protocol):
    """Scores rows. One event loop owns it. Every refusal is a `Problem`."""

    @property
    def artifact(self) -> Mapping[str, str]:
        """What made the scores: at least `model_rev`, `tap`, `sae_sha256`, `calibration_sha256`, `dtype`, `backend`."""
        ...

    @property
    def groups(self) -> Sequence[GroupFacts]:
        """Groups of the calibration."""
        ...

    @property
    def card(self) -> Mapping[str, Any]:
        """What else there is to say of the meter, for people to read (see `meter_card`); empty where nothing is known."""
        ...

    @property
    def limits(self) -> Mapping[str, int]:
        """How much is taken at most, for clients to read: `prompt_tokens`, `request_tokens`, `queue_rows`, `queue_tokens`."""
        ...

    def checks(self) -> Mapping[str, str]:
        """Each thing that must be well before a score may be believed: "ok", or what is wrong."""
        ...

    async def score(self, rows: Sequence[Row], deadline: float) -> list[Scored]:
        """Readings in order, all or none. `deadline`: on the clock of the event loop. Being cancelled gives the room back.

        Errors: `Problem` of `queue-full`, `loading`, `restarting`, `out-of-memory`, `draining`, `deadline-unreachable`, `deadline`,
        `non-finite`, `too-many-tokens`, `nothing-to-score`, `internal`.
        """
        ...

    def stream(self, row: Row, flush_tokens: int, deadline: float) -> AsyncIterator[Some | Scored]:
        """Parts of so many tokens as they are done, then the whole. Errors: as of `score`."""
        ...

    async def start(self) -> None:
        """Load the model. Errors: `Problem` of `internal`."""
        ...

    async def lost(self) -> str:
        """Wait until nothing will be scored any more, and say why. The process should then end with an exit code other than 0."""
        ...

    async def stop(self) -> None:
        """Finish what has begun, for as long as the configuration says, and end."""
        ...
