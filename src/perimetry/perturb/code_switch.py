"""Words of another language in an English text at a dose."""

import random
import re
from dataclasses import dataclass
from typing import ClassVar, final

from perimetry.errors import UnknownName
from perimetry.perturb.base import AbstractPerturbation, rewrite
from perimetry.perturb.dictionary import LANGUAGES, TRANSLATIONS
from perimetry.perturb.letters import like, lower

__all__ = ["CodeSwitch"]

WORD = re.compile(r"[^\W\d_]+")


@final
@dataclass(frozen=True)
class CodeSwitch(AbstractPerturbation):
    """A share of the common English words of a text translated, each alone, as a bilingual speaker slips.

    A word is a run of letters. What is translated takes over its capitals; gender, number and case of the other
    language are those of the dictionary's form. Words that `TRANSLATIONS` lacks, or that are the same in both
    languages, are not eligible.

    >>> CodeSwitch("french").apply("The house is old.", 0.5, random.Random(1))
    'The house est vieux.'
    """

    language: str = "spanish"
    """One of `LANGUAGES`."""
    name: ClassVar[str] = "code_switch"

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise UnknownName("language", self.language, LANGUAGES)

    @classmethod
    def tiny(cls) -> "CodeSwitch":
        """Spanish."""
        return cls()

    def eligible(self, text: str) -> int:
        """Words whose translation is another word."""
        return len(self._words(text))

    def apply(self, text: str, dose: float, rng: random.Random) -> str:
        """`share(dose, eligible)` words translated."""
        return rewrite(text, self._words(text), dose, rng, lambda word, _: self._translate(word))

    def _words(self, text: str) -> list[re.Match[str]]:
        return [word for word in WORD.finditer(text) if self._translate(word.group()) != word.group()]

    def _translate(self, word: str) -> str:
        found = TRANSLATIONS[self.language].get(lower(word))
        return like(found, word) if found else word
