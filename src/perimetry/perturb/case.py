"""The case of letters at a dose: random, upper, alternating."""

import random
import re
from dataclasses import dataclass
from typing import ClassVar, final

from perimetry.errors import UnknownName
from perimetry.perturb.base import AbstractPerturbation, chosen

__all__ = ["CASE_STYLES", "LetterCase"]

WORD = re.compile(r"[^\W\d_]+")
CASE_STYLES = ("alternating", "random", "upper")
"""The ways to recase a word."""


def _flip(letter: str) -> str:
    """The letter in its other case, or itself where it has none, or one of more than one character."""
    other = letter.swapcase()
    return other if len(other) == 1 and other.swapcase() == letter else letter


def _upper(letter: str) -> str:
    return _flip(letter) if letter.islower() else letter


def _lower(letter: str) -> str:
    return _flip(letter) if letter.isupper() else letter


def _random(word: str, rng: random.Random) -> str:
    """A non-empty random set of the letters flipped, each with odds of one half."""
    able = [i for i, letter in enumerate(word) if _flip(letter) != letter]
    flips = {i for i in able if rng.random() < 0.5} or {rng.choice(able)}
    return "".join(_flip(letter) if i in flips else letter for i, letter in enumerate(word))


def _alternating(word: str, rng: random.Random) -> str:
    """Lower and upper in turn, from a random start; the other start where the first would change nothing."""
    start = rng.randrange(2)
    styles = [
        "".join(_upper(letter) if (i + phase) % 2 else _lower(letter) for i, letter in enumerate(word))
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
        words = self._words(text)
        edits = chosen(dose, len(words), rng)
        parts: list[str] = []
        end = 0
        for unit in sorted(edits):
            word = words[unit]
            parts += [text[end : word.start()], self._recase(word.group(), edits[unit])]
            end = word.end()
        return "".join([*parts, text[end:]])

    def _words(self, text: str) -> list[re.Match[str]]:
        change = _upper if self.style == "upper" else _flip
        return [word for word in WORD.finditer(text) if any(change(letter) != letter for letter in word.group())]

    def _recase(self, word: str, rng: random.Random) -> str:
        if self.style == "upper":
            return "".join(map(_upper, word))
        return _alternating(word, rng) if self.style == "alternating" else _random(word, rng)
