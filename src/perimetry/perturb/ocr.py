"""Reading errors of an optical scanner at a dose: letters taken for others of the same shape."""

import random
import re
from dataclasses import dataclass
from typing import ClassVar, final

from perimetry.perturb.base import AbstractPerturbation, rewrite

__all__ = ["OCR_CONFUSIONS", "Ocr"]

WORD = re.compile(r"[^\W\d_]{2,}")

OCR_CONFUSIONS: dict[str, tuple[str, ...]] = {
    "B": ("8",),
    "D": ("O",),
    "E": ("F",),
    "G": ("C", "6"),
    "I": ("l", "1"),
    "M": ("IVI",),
    "N": ("IV",),
    "O": ("0", "Q"),
    "S": ("5",),
    "T": ("'I'",),
    "U": ("LI",),
    "W": ("VV",),
    "Z": ("2",),
    "a": ("o", "n"),
    "b": ("h", "6"),
    "c": ("e", "o"),
    "cl": ("d",),
    "d": ("cl",),
    "e": ("c", "o"),
    "ff": ("fi",),
    "fi": ("h",),
    "g": ("q", "9"),
    "h": ("b", "li"),
    "i": ("l", "j"),
    "ii": ("u",),
    "k": ("lc",),
    "l": ("1", "I", "i"),
    "li": ("h",),
    "ll": ("U",),
    "m": ("rn", "nn"),
    "n": ("ri", "u"),
    "nn": ("rm",),
    "o": ("0", "c"),
    "q": ("g",),
    "ri": ("n",),
    "rm": ("nn",),
    "rn": ("m",),
    "s": ("5", "z"),
    "t": ("f", "l"),
    "tt": ("it",),
    "u": ("ii", "n"),
    "v": ("y",),
    "vv": ("w",),
    "w": ("vv",),
    "y": ("v",),
    "z": ("2",),
}
"""What a scanner takes each letter or pair of letters for: shapes that differ by a stroke, a gap or a serif. Confusions that
are reported time and again for printed text; the list is no measured table and has no rates."""


@final
@dataclass(frozen=True)
class Ocr(AbstractPerturbation):
    """One misread letter, or pair of letters, in each of a share of the words. A word is a run of at least two letters.

    The place is drawn evenly among those where the word holds an entry of `OCR_CONFUSIONS`, then what it is taken for.
    A scanner also loses and adds spaces; that is left out, so that the number of words stays. Words without an entry are
    not eligible. Unlike a typing error, a misread letter may become a digit.

    >>> Ocr().apply("modern tales", 1.0, random.Random(0))
    'modem talez'
    """

    name: ClassVar[str] = "ocr"

    @classmethod
    def tiny(cls) -> "Ocr":
        """The only one."""
        return cls()

    def eligible(self, text: str) -> int:
        """Words of at least two letters that hold an entry of `OCR_CONFUSIONS`."""
        return len(_words(text))

    def apply(self, text: str, dose: float, rng: random.Random) -> str:
        """One misread letter or pair in each of `share(dose, eligible)` words."""
        return rewrite(text, _words(text), dose, rng, _misread)


def _sites(word: str) -> list[tuple[int, str]]:
    found = [(i, word[i : i + 2]) for i in range(len(word) - 1) if word[i : i + 2] in OCR_CONFUSIONS]
    return found + [(i, letter) for i, letter in enumerate(word) if letter in OCR_CONFUSIONS]


def _words(text: str) -> list[re.Match[str]]:
    return [word for word in WORD.finditer(text) if any(letter in OCR_CONFUSIONS for letter in word.group())]


def _misread(word: str, rng: random.Random) -> str:
    at, seen = rng.choice(_sites(word))
    return word[:at] + rng.choice(OCR_CONFUSIONS[seen]) + word[at + len(seen) :]
