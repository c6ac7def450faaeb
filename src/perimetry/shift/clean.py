"""Clean text in three disjoint parts: what is normal, the moments of the scores, the calibration."""

import math
import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field, model_validator

from perimetry.activations.text import HasText, shuffled
from perimetry.config import Config
from perimetry.errors import NoScorableToken, PromptTooLong, TooFewSamples, UsageError
from perimetry.shift.evidence import Extractor, Prompt

__all__ = ["CleanParts", "MeterConfig", "cut_passages", "split_clean"]


class MeterConfig(Config):
    """How a meter is fitted."""

    main: str = "unforeseen"
    """The detector, with its pooling, whose score and p-value a reading gives."""
    profile_tokens: int = Field(default=100_000, ge=1_000)
    """Tokens of clean text that say what is normal."""
    foresight_tokens: int = Field(default=50_000, ge=500)
    """Tokens of the profile that the whole model reads, to learn what it foresees; the others stop at the tap."""
    reference_tokens: int = Field(default=8_000, ge=500)
    """Tokens, apart from the profile, that give each score's clean mean and deviation (for CUSUM)."""
    calibration_prompts: int = Field(default=600, ge=20)
    """Clean prompts, apart from both, whose scores calibrate the p-values."""
    passages: bool | None = None
    """Cut texts into passages of mixed lengths; None: the caller decides by the kind of text."""
    words_low: int = Field(default=15, ge=1)
    """Shortest passage, in words."""
    words_high: int = Field(default=200, ge=2)
    """Longest passage, in words; lengths are uniform in their logarithm."""
    groups: int = Field(default=3, ge=1)
    """Length groups of the calibration."""
    minimum: int = Field(default=99, ge=1)
    """Calibration prompts below which a group falls back to the pooled set; 99 is the least that can reach p = .01."""
    bank: int = Field(default=8192, ge=16)
    """Clean tokens kept for nearest neighbours."""
    contexts: int = Field(default=3, ge=1)
    """Clean passages kept for each concept."""
    seed: int = 0
    """Seed of the cutting and of the split."""
    batch_tokens: int = Field(default=4096, ge=16)
    """Padded tokens of one forward pass."""

    @model_validator(mode="after")
    def _ordered(self) -> "MeterConfig":
        if self.words_low > self.words_high:
            raise ValueError(f"words_low = {self.words_low} exceeds words_high = {self.words_high}; swap them")
        return self


class CleanParts(NamedTuple):
    """Clean prompts in three disjoint parts; no document is in two of them."""

    profile: list[Prompt]
    """What is normal."""
    reference: list[Prompt]
    """Moments of the scores."""
    calibration: list[Prompt]
    """Scores of clean prompts."""


def cut_passages(documents: Sequence[HasText], low: int, high: int, seed: int) -> list[tuple[str, str]]:
    """One passage (id, text) a document, its length in words drawn log-uniformly from `low` to `high`.

    Documents shorter than `low` words are left out; a document shorter than the drawn length gives all it has.
    """
    found: list[tuple[str, str]] = []
    for document in documents:
        rng = random.Random(f"{seed}:{document.id}")
        spans = [m.span() for m in re.finditer(r"\S+", document.text)]
        if len(spans) < low:
            continue
        length = min(len(spans), round(math.exp(rng.uniform(math.log(low), math.log(high)))))
        first = rng.randrange(len(spans) - length + 1)
        found.append((f"{document.id}#{first}", document.text[spans[first][0] : spans[first + length - 1][1]]))
    return found


def split_clean(
    extractor: Extractor, documents: Sequence[HasText], config: MeterConfig, *, passages: bool
) -> CleanParts:
    """Clean prompts for calibration, reference and profile, in this order, from shuffled documents.

    With `passages` a document gives one calibration prompt at most, but as many profile passages as are needed.
    Errors: `TooFewSamples` says how many there are and how many were wanted; `UsageError` where texts share an id;
    `PromptTooLong`, `NoScorableToken` and `EmptyText` for a prompt, where texts are not cut into passages.
    """
    order = shuffled(documents, f"meter:{config.seed}")
    by_id = {d.id: i for i, d in enumerate(order)}
    if len(by_id) != len(order):
        raise UsageError(f"{len(order) - len(by_id)} texts share an id with another one; give every text its own id")
    calibration: list[Prompt] = []
    used = 0
    while used < len(order) and len(calibration) < config.calibration_prompts:
        calibration += _prompts(extractor, [order[used]], config, passages, 0)
        used += 1
    rest = order[used:]
    if len(calibration) < config.calibration_prompts or len(rest) < 2:
        raise TooFewSamples(
            f"{len(documents)} texts give {len(calibration)} calibration prompts and leave {len(rest)} for the profile; "
            f"{config.calibration_prompts} are wanted and as many again for the profile; give more clean text or ask for "
            "fewer with --prompts"
        )
    cut = max(1, len(rest) // 10)
    reference = _up_to(extractor, rest[:cut], config, passages, config.reference_tokens)
    profile = _up_to(extractor, rest[cut:], config, passages, config.profile_tokens)
    return CleanParts(profile, reference, calibration)


def _prompts(
    extractor: Extractor, documents: Sequence[HasText], config: MeterConfig, passages: bool, turn: int
) -> list[Prompt]:
    """Prompts of these texts; as passages, those that do not fit the context or hold nothing to score are dropped."""
    if not passages:
        try:
            return extractor.prepare([d.id for d in documents], [d.text for d in documents])
        except PromptTooLong as error:
            what = str(error).partition("; ")[0]
            raise PromptTooLong(f"{what}; shorten or remove it, or cut the texts with --passages") from error
    found: list[Prompt] = []
    for name, text in cut_passages(documents, config.words_low, config.words_high, config.seed + 1000 * turn):
        try:
            found += extractor.prepare([name], [text])
        except (PromptTooLong, NoScorableToken):
            continue
    return found


def _up_to(
    extractor: Extractor, documents: Sequence[HasText], config: MeterConfig, passages: bool, tokens: int
) -> list[Prompt]:
    """Prompts until `tokens` tokens are reached; passages are drawn again from the same texts up to 20 times."""
    found: list[Prompt] = []
    have = 0
    for turn in range(20 if passages else 1):
        for document in documents:
            new = _prompts(extractor, [document], config, passages, turn)
            found += new
            have += sum(sum(p.encoded.countable) for p in new)
            if have >= tokens:
                return found
    return found
