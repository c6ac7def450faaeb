"""Readings as a report shows them: a prompt token by token, and the concepts that speak for its score."""

from pydantic import ConfigDict

from perimetry.config import Config

__all__ = ["ConceptEntry", "Example", "ReadingEntry", "TokenEntry"]


class TokenEntry(Config):
    """One scorable token of a reading."""

    text: str
    """The token as text."""
    score: float
    """Higher = further from clean text."""


class ConceptEntry(Config):
    """A concept that speaks for the score of a prompt."""

    latent: int
    """Index in the dictionary."""
    token: str
    """Token at which it fired hardest."""
    position: int
    """Index of that token among the scorable ones."""
    activation: float
    """Its activation there."""
    clean_rate: float
    """Share of clean tokens on which it fires."""
    surprise: float
    """What its firing adds to the score, in nats."""
    contexts: tuple[str, ...] = ()
    """Clean passages on which it fires hardest."""


class ReadingEntry(Config):
    """`Reading.to_json(tokens=True, concepts=True)`; fields that the report does not show are let through."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    id: str
    """Name of the prompt."""
    score: float
    """Pooled score of the main detector."""
    p_value: float
    """Share of clean calibration prompts that score as high."""
    flagged: bool
    """Whether it raised an alarm."""
    group: str = ""
    """Calibration group."""
    tokens_scored: int
    """Tokens that counted."""
    detector: str
    """Main detector with its pooling."""
    tokens: tuple[TokenEntry, ...]
    """Per-token scores, in order."""
    concepts: tuple[ConceptEntry, ...] = ()
    """Concepts that speak loudest."""


class Example(Config):
    """A clean passage and its corrupted twin."""

    title: str
    """What was done to the passage."""
    clean: ReadingEntry | None = None
    """Reading of the passage; None where there is no twin."""
    shifted: ReadingEntry
    """Reading of the corrupted text."""
