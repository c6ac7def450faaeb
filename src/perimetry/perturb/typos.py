"""Typing errors at a dose: neighbouring keys, transpositions, deletions, insertions."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

from perimetry.errors import UnknownName, UsageError
from perimetry.perturb.base import AbstractPerturbation, rewrite

__all__ = ["TYPO_KINDS", "TypoKind", "Typos"]

WORD = re.compile(r"[^\W\d_]{3,}")
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _neighbours() -> dict[str, str]:
    """The letters around each letter on a QWERTY keyboard, whose rows are each shifted by half a key."""
    place = {letter: (row, column + 0.5 * row) for row, keys in enumerate(ROWS) for column, letter in enumerate(keys)}
    return {
        letter: "".join(
            other
            for other, (r, c) in place.items()
            if other != letter and abs(r - row) <= 1 and abs(c - column) <= (1.0 if r == row else 0.5)
        )
        for letter, (row, column) in place.items()
    }


NEIGHBOURS = _neighbours()


class TypoKind(NamedTuple):
    """One kind of typing error on one word."""

    sites: Callable[[str], list[int]]
    """Positions in the word at which this error changes it."""
    edit: Callable[[str, int, random.Random], str]
    """The word with the error made at one of these positions."""


def _cased(letter: str, model: str) -> str:
    """`letter` in the case of `model`, where that is still one letter."""
    other = letter.upper() if model.isupper() else letter.lower()
    return other if len(other) == 1 else letter


def _keyboard_sites(word: str) -> list[int]:
    return [i for i, letter in enumerate(word) if letter.lower() in NEIGHBOURS]


def _keyboard(word: str, at: int, rng: random.Random) -> str:
    key = _cased(rng.choice(NEIGHBOURS[word[at].lower()]), word[at])
    return word[:at] + key + word[at + 1 :]


def _transpose(word: str, at: int) -> str:
    first, second = word[at], word[at + 1]
    return word[:at] + _cased(second, first) + _cased(first, second) + word[at + 2 :]


def _transposition_sites(word: str) -> list[int]:
    return [i for i in range(len(word) - 1) if _transpose(word, i) != word]


def _all_sites(word: str) -> list[int]:
    return list(range(len(word)))


def _insertion(word: str, at: int, rng: random.Random) -> str:
    """A key beside the letter is hit with it, or the letter itself twice (the only case for letters off the table)."""
    extra = rng.choice(word[at] + NEIGHBOURS.get(word[at].lower(), ""))
    place = at + 1 if at == 0 else at + rng.randrange(2)
    return word[:place] + _cased(extra, word[max(place - 1, 1)]) + word[place:]


TYPO_KINDS: dict[str, TypoKind] = {
    "deletion": TypoKind(_all_sites, lambda word, at, _: word[:at] + word[at + 1 :]),
    "insertion": TypoKind(_all_sites, _insertion),
    "keyboard": TypoKind(_keyboard_sites, _keyboard),
    "transposition": TypoKind(_transposition_sites, lambda word, at, _: _transpose(word, at)),
}
"""The kinds of typing errors by name."""


@final
@dataclass(frozen=True)
class Typos(AbstractPerturbation):
    """One typing error in each of a share of the words. A word is a run of at least three letters.

    Letters stay letters, so a corrupted word is still one run of letters, and the capital at the start of a word stays
    where it is (`The` becomes `Hte`, as the shift key is held for the first stroke). Which kind of error hits a word is
    drawn evenly among the chosen kinds that can change it. Words that none can change are not eligible.

    >>> Typos(("transposition",)).apply("An old map, of the city.", 0.5, random.Random(3))
    'An old mpa, of the icty.'
    """

    kinds: tuple[str, ...] = ("keyboard", "transposition", "deletion", "insertion")
    """Names in `TYPO_KINDS`."""
    name: ClassVar[str] = "typos"

    def __post_init__(self) -> None:
        if not self.kinds:
            raise UsageError("no kind of typo was chosen; wanted at least one of " + ", ".join(TYPO_KINDS))
        for kind in self.kinds:
            if kind not in TYPO_KINDS:
                raise UnknownName("kind of typo", kind, TYPO_KINDS)

    @classmethod
    def tiny(cls) -> "Typos":
        """All kinds."""
        return cls()

    def eligible(self, text: str) -> int:
        """Words of at least three letters that a chosen kind can change."""
        return len(self._words(text))

    def apply(self, text: str, dose: float, rng: random.Random) -> str:
        """One typing error in each of `share(dose, eligible)` words."""
        return rewrite(text, self._words(text), dose, rng, self._edit)

    def _words(self, text: str) -> list[re.Match[str]]:
        kinds = [TYPO_KINDS[kind] for kind in self.kinds]
        return [word for word in WORD.finditer(text) if any(kind.sites(word.group()) for kind in kinds)]

    def _edit(self, word: str, rng: random.Random) -> str:
        able = [kind for kind in self.kinds if TYPO_KINDS[kind].sites(word)]
        kind = TYPO_KINDS[rng.choice(able)]
        return kind.edit(word, rng.choice(kind.sites(word)), rng)
