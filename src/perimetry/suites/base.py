"""Cases, suites, and how well the negatives of a suite match its positives."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch

from perimetry.assets import read_texts
from perimetry.assets.documents import Document
from perimetry.errors import TooFewSamples, UsageError
from perimetry.measures.stats import ks_two_sample

__all__ = ["EVERY_FAMILY", "Case", "Length", "Suite", "SuiteInputs", "check_suite", "compare_lengths"]

EVERY_FAMILY = "all"
"""In results, all families together; no family can be called so."""

Length = Callable[[str], int]
"""Length of a text in scorable tokens."""


class Case(NamedTuple):
    """One text of a benchmark."""

    id: str
    """Unique within the suite."""
    text: str
    """What is scored."""
    pair: str
    """Cases that share it belong together (a passage and its corrupted twins, an attack and its matched negatives); the
    bootstrap draws them together."""
    family: str
    """Kind of shift, or kind of clean text."""
    dose: float
    """Strength of the shift, 0 for clean text; 1 where the suite has no dial."""
    shifted: bool
    """True where a detector should score high."""


class Suite(NamedTuple):
    """A named benchmark."""

    name: str
    """Name in `SUITES`, or the stem of the user's file."""
    description: str
    """One sentence: which texts, which shift, which negatives."""
    cases: tuple[Case, ...]
    """All texts."""
    matching: dict[str, Any]
    """How the negatives were matched, measured: plain JSON values."""
    benign: tuple[str, ...] = ()
    """Families of shifted cases that are novel and harmless: a detector of attacks should not alarm on them."""


class SuiteInputs(NamedTuple):
    """What the builders in `SUITES` read; each takes from it what it needs."""

    clean: Sequence[Document]
    """Held-out clean documents, never used to train, profile or calibrate; long ones, which are cut to passages."""
    attacks: Sequence[Document]
    """Attack prompts; `meta["family"]` names the family."""
    benign: Sequence[Document]
    """Benign texts of other kinds than `clean`: questions, stories, reviews, messages."""
    length: Length
    """Counts tokens as the meter will."""
    limit: int
    """Most tokens of a case; longer attacks are cut to whole words, and the suite says how many."""
    words: int
    """Words of a clean passage."""
    n: int
    """Most pairs."""
    seed: int
    """Seed of every draw."""
    read: Callable[[str], Iterable[Document]] = read_texts
    """Reads the named texts that a suite is made of besides these; `read_texts` pulls the asset where it is absent."""


def check_suite(suite: Suite) -> Suite:
    """The suite itself, once its ids are unique and both kinds of cases are there. Errors: `TooFewSamples`, `UsageError`."""
    shifted = sum(case.shifted for case in suite.cases)
    if not shifted or shifted == len(suite.cases):
        raise TooFewSamples(
            f"suite {suite.name!r} has {shifted} shifted and {len(suite.cases) - shifted} clean cases; wanted at least "
            "one of each; give more or longer texts"
        )
    if len({case.id for case in suite.cases}) != len(suite.cases):
        raise UsageError(f"suite {suite.name!r} uses an id twice; wanted one id a case; rename the cases")
    if any(case.family == EVERY_FAMILY for case in suite.cases):
        raise UsageError(
            f"suite {suite.name!r} has a family called {EVERY_FAMILY!r}, which stands for all families together; rename it"
        )
    return suite


def compare_lengths(shifted: Sequence[str], clean: Sequence[str], length: Length) -> dict[str, float | int]:
    """How alike two groups of texts are in length: means, and Kolmogorov-Smirnov distances in [0, 1], 0 = the same.

    >>> compare_lengths(["a b", "c d"], ["e f", "g h"], lambda text: len(text.split()))["ks_words"]
    0.0
    """
    tokens = [torch.tensor([length(text) for text in group], dtype=torch.float64) for group in (shifted, clean)]
    words = [torch.tensor([len(text.split()) for text in group], dtype=torch.float64) for group in (shifted, clean)]
    return {
        "n_shifted": len(shifted),
        "n_clean": len(clean),
        "tokens_shifted": float(tokens[0].mean()),
        "tokens_clean": float(tokens[1].mean()),
        "words_shifted": float(words[0].mean()),
        "words_clean": float(words[1].mean()),
        "ks_tokens": ks_two_sample(*tokens).statistic,
        "ks_words": ks_two_sample(*words).statistic,
    }
