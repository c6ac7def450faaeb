"""The one object that the command line, the report and the service show of a prompt."""

from typing import Any, NamedTuple

__all__ = [
    "ConceptEvidence",
    "ExpectedConcept",
    "FiredConcept",
    "HotToken",
    "Reading",
    "TapReading",
    "TokenReading",
]


class ConceptEvidence(NamedTuple):
    """A concept that speaks for the score of a prompt."""

    latent: int
    """Index of the concept in the dictionary."""
    token: str
    """The token at which it fired hardest, as text."""
    position: int
    """Index of that token among the scorable ones."""
    activation: float
    """Its activation there, in the units of the SAE."""
    clean_rate: float
    """Share of clean tokens on which it fires."""
    surprise: float
    """What its firing adds to the score: log((1 - rate) / rate), in nats."""
    contexts: tuple[str, ...]
    """Clean passages on which it fires hardest, the token between guillemets; empty where it never fired on clean
    text."""


class TokenReading(NamedTuple):
    """One scorable token."""

    text: str
    """The token as text."""
    score: float
    """Score of the meter's main detector at this token; higher = further from clean text."""


class FiredConcept(NamedTuple):
    """A concept that is active at a hot token."""

    latent: int
    """Index of the concept in the dictionary."""
    activation: float
    """Its activation there, in the units of the SAE."""
    clean_rate: float
    """Share of clean tokens on which it fires."""
    share: float
    """Share of the nearest clean tokens on which it fires."""
    supported: bool
    """False where it counts as a false concept of `fallacious_f2`: nothing like this token makes it fire on clean text."""
    contexts: tuple[str, ...]
    """Clean passages on which it fires hardest, the token between guillemets."""


class ExpectedConcept(NamedTuple):
    """A concept that most of the nearest clean tokens fire and a hot token does not."""

    latent: int
    """Index of the concept in the dictionary."""
    share: float
    """Share of the nearest clean tokens on which it fires, above a half."""
    clean_rate: float
    """Share of all clean tokens on which it fires."""
    contexts: tuple[str, ...]
    """Clean passages on which it fires hardest, the token between guillemets."""


class HotToken(NamedTuple):
    """One of the tokens that score highest, and what the nearest clean tokens would have fired instead."""

    token: str
    """The token as text."""
    position: int
    """Index of the token among the scorable ones."""
    score: float
    """As in `TokenReading`."""
    fired: tuple[FiredConcept, ...]
    """Active concepts, unsupported ones first, then by rarity."""
    instead: tuple[ExpectedConcept, ...]
    """Concepts that are missed, the most expected first; empty where the nearest clean tokens agree on nothing else."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = {"token": self.token, "position": self.position, "score": self.score}
        return plain | {"fired": [f._asdict() for f in self.fired], "instead": [e._asdict() for e in self.instead]}


class TapReading(NamedTuple):
    """What one tap of a meter over several layers says of a prompt: as its own meter alone would."""

    score: float
    """As in `Reading`, of the tap's main detector."""
    p_value: float
    """As in `Reading`, for this tap alone. The smallest of several is no p-value; that of the reading is."""
    flagged: bool
    """Whether `p_value` is at most the reading's `alpha`."""
    tokens: tuple[TokenReading, ...] = ()
    """Per-token scores, in order."""
    concepts: tuple[ConceptEvidence, ...] = ()
    """The concepts that speak loudest for the score."""
    hot: tuple[HotToken, ...] = ()
    """The tokens that score highest, hottest first."""

    def to_json(self, *, tokens: bool = False, concepts: bool = False) -> dict[str, Any]:
        """Plain values."""
        line: dict[str, Any] = {"score": self.score, "p_value": self.p_value, "flagged": self.flagged}
        return line | _evidence(self, tokens=tokens, concepts=concepts)


class Reading(NamedTuple):
    """How far one prompt lies outside what the model knows."""

    id: str
    """The caller's name for the prompt."""
    score: float
    """Pooled score of the meter's main detector; higher = further from clean text."""
    p_value: float
    """Share of clean calibration prompts of the same group that score as high, in [1 / (n + 1), 1]."""
    flagged: bool
    """Whether `p_value` is at most `alpha`; where the batch was judged as a whole, whether `q` is at most `fdr`."""
    alpha: float
    """The false-alarm rate that was asked for."""
    group: str
    """The calibration group, by length."""
    fallback: bool
    """True where the group had too few calibration prompts and the pooled set was used."""
    tokens_scored: int
    """Tokens that counted."""
    tokens_excluded: int
    """Tokens that the policy kept out: special ones, template, sinks."""
    truncated: bool
    """True where the prompt was cut to the context, which happens on demand only."""
    detector: str
    """Name of the main detector with its pooling."""
    scores: dict[str, float]
    """Detector name (with pooling suffix) -> score."""
    tokens: tuple[TokenReading, ...]
    """Per-token scores, in order."""
    concepts: tuple[ConceptEvidence, ...]
    """The concepts that speak loudest for the score."""
    meter: str
    """Digest of the meter artifact that said so."""
    q: float | None = None
    """Smallest false discovery rate at which the batch would flag the prompt; None where prompts are judged alone."""
    fdr: float | None = None
    """The false discovery rate that was asked of the batch."""
    hot: tuple[HotToken, ...] = ()
    """The tokens that score highest, hottest first, each with its concepts and with what was to be expected instead."""
    taps: dict[str, TapReading] | None = None
    """What each tap says, for a meter over several layers; None for a meter of one."""
    tap: str | None = None
    """The tap with the smallest p-value, from which `tokens`, `concepts` and `hot` are."""

    def to_json(self, *, tokens: bool = False, concepts: bool = False) -> dict[str, Any]:
        """Plain values in the order of the documented JSONL line."""
        line: dict[str, Any] = {
            "id": self.id,
            "score": self.score,
            "p_value": self.p_value,
            "flagged": self.flagged,
            "alpha": self.alpha,
            "group": self.group,
            "fallback": self.fallback,
            "tokens_scored": self.tokens_scored,
            "tokens_excluded": self.tokens_excluded,
            "truncated": self.truncated,
            "detector": self.detector,
            "scores": self.scores,
            "meter": self.meter,
        }
        if self.q is not None:
            line |= {"q": self.q, "fdr": self.fdr}
        if self.taps is not None:
            line["tap"] = self.tap
            line["taps"] = {name: tap.to_json(tokens=tokens, concepts=concepts) for name, tap in self.taps.items()}
        return line | _evidence(self, tokens=tokens, concepts=concepts)


def _evidence(reading: Reading | TapReading, *, tokens: bool, concepts: bool) -> dict[str, Any]:
    line: dict[str, Any] = {}
    if tokens:
        line["tokens"] = [t._asdict() for t in reading.tokens]
    if concepts:
        line["concepts"] = [c._asdict() for c in reading.concepts]
        line["hot"] = [token.to_json() for token in reading.hot]
    return line
