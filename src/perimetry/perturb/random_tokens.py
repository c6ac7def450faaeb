"""Random words, or random letters, in place of words at a dose."""

import random
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, final

from perimetry.errors import UnknownName
from perimetry.perturb.base import AbstractPerturbation, rewrite
from perimetry.perturb.letters import like, lower

__all__ = ["RANDOM_KINDS", "RandomTokens"]

WORD = re.compile(r"[^\W\d_]+")
RANDOM_KINDS = ("letters", "words")
"""What stands in for a word."""
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
DRAWS = 8


class _Vocabulary:
    """Words by their length, each as often as it occurred."""

    def __init__(self, words: Sequence[str]) -> None:
        self.by_length: dict[int, list[str]] = {}
        for word in words:
            self.by_length.setdefault(len(word), []).append(word)
        self.kinds = {size: len(set(found)) for size, found in self.by_length.items()}
        self.sizes = sorted(self.by_length)

    def others(self, word: str) -> list[str]:
        """The words of the nearest length at which there is another word than this; the shorter of two."""
        place = bisect_left(self.sizes, len(word))
        low, high = place - 1, place
        while low >= 0 or high < len(self.sizes):
            near = high >= len(self.sizes) or (low >= 0 and len(word) - self.sizes[low] <= self.sizes[high] - len(word))
            size = self.sizes[low] if near else self.sizes[high]
            low, high = (low - 1, high) if near else (low, high + 1)
            if self.kinds[size] > 1 or self.by_length[size][0] != word:
                return self.by_length[size]
        return []


@final
@dataclass(frozen=True)
class RandomTokens(AbstractPerturbation):
    """A share of the words replaced. A word is a run of letters; what replaces it takes over its capitals.

    `words` draws another word of the nearest length from the vocabulary, as often as each occurs there, so that neither
    lengths nor frequencies give the change away, only the context does. `letters` puts as many random letters of the
    Latin alphabet. Words for which the vocabulary holds no other are not eligible.

    >>> RandomTokens("words").apply("Old maps show the new land", 0.5, random.Random(2))
    'Old maps land old old land'
    """

    kind: str = "words"
    """One of `RANDOM_KINDS`."""
    vocabulary: tuple[str, ...] = field(default=(), repr=False)
    """Words to draw from, repeats included; none means the words of the text itself."""
    name: ClassVar[str] = "random_tokens"

    def __post_init__(self) -> None:
        if self.kind not in RANDOM_KINDS:
            raise UnknownName("kind of random token", self.kind, RANDOM_KINDS)

    @classmethod
    def tiny(cls) -> "RandomTokens":
        """Words of the text itself."""
        return cls()

    def eligible(self, text: str) -> int:
        """Words for which there is another one; with `letters`, all words."""
        return len(self._words(text, self._pool(text)))

    def apply(self, text: str, dose: float, rng: random.Random) -> str:
        """`share(dose, eligible)` words replaced."""
        pool = self._pool(text)

        def edit(word: str, how: random.Random) -> str:
            return _letters(word, how) if self.kind == "letters" else _other(word, pool.others(lower(word)), how)

        return rewrite(text, self._words(text, pool), dose, rng, edit)

    @cached_property
    def _shared(self) -> _Vocabulary:
        return _Vocabulary([lower(word) for word in self.vocabulary])

    def _pool(self, text: str) -> _Vocabulary:
        return self._shared if self.vocabulary else _Vocabulary([lower(word) for word in WORD.findall(text)])

    def _words(self, text: str, pool: _Vocabulary) -> list[re.Match[str]]:
        found = list(WORD.finditer(text))
        return found if self.kind == "letters" else [word for word in found if pool.others(lower(word.group()))]


def _other(word: str, others: Sequence[str], rng: random.Random) -> str:
    same = lower(word)
    for _ in range(DRAWS):
        drawn = rng.choice(others)
        if drawn != same:
            return like(drawn, word)
    return like(rng.choice([other for other in others if other != same]), word)


def _letters(word: str, rng: random.Random) -> str:
    drawn = [rng.choice(ALPHABET) for _ in word]
    if "".join(drawn) == lower(word):
        at = rng.randrange(len(drawn))
        drawn[at] = rng.choice(ALPHABET.replace(drawn[at], ""))
    return like("".join(drawn), word)
