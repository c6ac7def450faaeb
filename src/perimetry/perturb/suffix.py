"""Gibberish at the end of a text at a dose, of the kind that a search over tokens writes."""

import random
from dataclasses import dataclass
from typing import ClassVar, final

from perimetry.perturb.base import AbstractPerturbation, share, split_words

__all__ = ["SUFFIX_PIECES", "GibberishSuffix"]

PIECES = r"""
]( "\ {" )); }} == ** \\ -> :// ='# ${ ## </ *) '] .- !! && :: ); [/ |- ++ ~~ _{ ^{ \\( ]] .. @{ %% +" ?> /* <-
begin{ return frac textbf const null void href param args static html print include endif struct async width span
mathbb href align cite label ref item table init index array assert lambda yield printf stdin enum typedef extern
tion ously ness ingly ment ably ized hood ward ism ette ling ship wise fold craft scape gram lette onia icus aria
Ster Gro Vol Kur Ple Bran Tex Mil Zan Dor Fen Hal Quin Rad Sor Tam Ulf Ven Wes Yor Bel Cor Dan Elb Fra Gal Hum
siempre entonces mientras donde porque wieder nicht zwischen durch immer toujours encore parce quelque depuis
sempre anche perche nella comune ancora altijd tussen zonder door prze jest oraz kter inne och inte mellan alla
sure revert please oppositely similarly describing giving likewise manual instead quietly sentence tutorial steps
Now With Two One For Interface Title Summary Option Table Chapter Section Image Source Reply Output Input Mode
"""
SUFFIX_PIECES = tuple(PIECES.split())
"""Pieces of code, mark-up, word endings, names and foreign words, about as long as a token each."""


@final
@dataclass(frozen=True)
class GibberishSuffix(AbstractPerturbation):
    """The last words of a text give way to as many strings of random pieces; the dose is their share of all words.

    Suffixes that a gradient search over tokens writes (GCG) look like this: fragments of code, of names, of several
    languages, glued together. These here are random and attack nothing; they take the place of words rather than
    follow them, so that a twin is as many words long as its original. All words are eligible.

    >>> GibberishSuffix().apply("one two three four", 0.5, random.Random(0)).split()[:2]
    ['one', 'two']
    """

    name: ClassVar[str] = "suffix"

    @classmethod
    def tiny(cls) -> "GibberishSuffix":
        """The only one."""
        return cls()

    def eligible(self, text: str) -> int:
        """The words, separated by white space."""
        return len(text.split())

    def apply(self, text: str, dose: float, rng: random.Random) -> str:
        """The last `share(dose, eligible)` words replaced by one to three pieces each."""
        words, gaps = split_words(text)
        keys = [rng.getrandbits(64) for _ in words]
        for place in range(len(words) - share(dose, len(words)), len(words)):
            words[place] = _gibberish(words[place], random.Random(keys[place]))
        return "".join(gap + word for gap, word in zip(gaps, words, strict=False)) + gaps[-1]


def _gibberish(word: str, rng: random.Random) -> str:
    made = word
    while made == word:
        made = "".join(rng.choice(SUFFIX_PIECES) for _ in range(rng.randint(1, 3)))
    return made
