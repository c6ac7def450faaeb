"""The case of letters at a dose: random, upper, alternating."""

import random
import re
from dataclasses import dataclass
from typing import ClassVar, final

from perimetry.errors import UnknownName
from perimetry.perturb.base import AbstractPerturbation, rewrite
from perimetry.perturb.letters import flip, lower, upper

__all__ = ["CASE_STYLES", "LetterCase"]

WORD = re.compile(r"[^\W\d_]+")
CASE_STYLES = ("alternating", "random", "upper")
"""The ways to recase a word."""


def _random(word: str, rng: random.Random) -> str:
    """A non-empty random set of the letters flipped, each with odds of one half."""
    able = [i for i, letter in enumerate(word) if flip(letter) != letter]
    flips = {i for i in able if rng.random() < 0.5} or {rng.choice(able)}
    return "".join(flip(letter) if i in flips else letter for i, letter in enumerate(word))


def _alternating(word: str, rng: random.Random) -> str:
    """Lower and upper in turn, from a random start; the other start where the first would change nothing."""
    start = rng.randrange(2)
    styles = [
        "".join(upper(letter) if (i + phase) % 2 else lower(letter) for i, letter in enumerate(word))
        for phase in (start, 1 - start)
    ]
    return styles[0] if styles[0] != word else styles[1]


@final
@dataclass(frozen=True)
class LetterCase(AbstractPerturbation):
    """A share of the words recased; no letter is added or lost. A word is a run of letters.

    `upper` shouts, `alternating` mocks (`lIkE ThIs`), `random` flips a random set of letters. Words that the style
    cannot change (`USA` in upper case) are not eligible.

    >>> LetterCase("upper").apply("one two three, four", 0.5, random.Random(0))
    'ONE two THREE, four'
    """

    style: str = "random"
    """One of `CASE_STYLES`."""
    name: ClassVar[str] = "case"

    def __post_init__(self) -> None:
        if self.style not in CASE_STYLES:
            raise UnknownName("case style", self.style, CASE_STYLES)

    @classmethod
    def tiny(cls) -> "LetterCase":
        """Random case."""
        return cls()

    def eligible(self, text: str) -> int:
        """Words that the style can change."""
        return len(self._words(text))

    def apply(self, text: str, dose: float, rng: random.Random) -> str:
        """`share(dose, eligible)` words recased."""
        return rewrite(text, self._words(text), dose, rng, self._recase)

    def _words(self, text: str) -> list[re.Match[str]]:
        change = upper if self.style == "upper" else flip
        return [word for word in WORD.finditer(text) if any(change(letter) != letter for letter in word.group())]

    def _recase(self, word: str, rng: random.Random) -> str:
        if self.style == "upper":
            return "".join(map(upper, word))
        return _alternating(word, rng) if self.style == "alternating" else _random(word, rng)
