"""Harmless rewrites of a text: the same words in the same order, written in another way that nobody would call an error.

No paraphraser is needed, and none is used: a word gets its British or American spelling where it has both, else curly quotes
for straight ones, else a doubled space before it. The last is the most frequent by far, and the mildest. What a rewrite
does to concepts is what any change of the characters does; what a corruption does beyond that is its own.
"""

from collections.abc import Collection
from typing import Final, NamedTuple

from perimetry.perturb.base import split_words

__all__ = ["KINDS", "Rewrite", "rewritten"]

KINDS: Final = ("spelling", "quotes", "space")
"""What may be done to a word, in the order in which it is tried."""

# American British
SPELLINGS: Final = """
color colour; colors colours; colored coloured; favor favour; favored favoured; favorite favourite; favorites favourites;
honor honour; honors honours; honored honoured; labor labour; labors labours; neighbor neighbour; neighbors neighbours;
neighborhood neighbourhood; behavior behaviour; behaviors behaviours; harbor harbour; harbors harbours; humor humour;
rumor rumour; rumors rumours; vapor vapour; flavor flavour; flavors flavours; armor armour; armored armoured; odor odour;
center centre; centers centres; centered centred; theater theatre; theaters theatres; meter metre; meters metres;
kilometer kilometre; kilometers kilometres; fiber fibre; fibers fibres; liter litre; liters litres; caliber calibre;
defense defence; defenses defences; offense offence; license licence; organize organise; organized organised;
organization organisation; organizations organisations; realize realise; realized realised; recognize recognise;
recognized recognised; criticize criticise; criticized criticised; emphasize emphasise; emphasized emphasised;
characterize characterise; characterized characterised; analyze analyse; analyzed analysed; traveled travelled;
traveling travelling; traveler traveller; travelers travellers; canceled cancelled; labeled labelled; modeled modelled;
modeling modelling; signaled signalled; counselor counsellor; jewelry jewellery; gray grey; aluminum aluminium;
catalog catalogue; dialog dialogue; program programme; programs programmes; airplane aeroplane; airplanes aeroplanes;
mold mould; plow plough; tire tyre; tires tyres; skeptical sceptical; maneuver manoeuvre; maneuvers manoeuvres;
pajamas pyjamas; mustache moustache; enrollment enrolment; fulfill fulfil; skillful skilful; archeology archaeology
"""


def _other_spellings() -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in SPELLINGS.split(";"):
        american, british = entry.split()
        found |= {american: british, british: american}
    return found


OTHER: Final = _other_spellings()
EDGES: Final = "\"'()[]{}.,;:!?"


class Rewrite(NamedTuple):
    """A text with some of its words written in another way."""

    text: str
    """As many white-space words as before, in their order."""
    kinds: tuple[str, ...]
    """What was done to each of the words asked for, in their order: one of `KINDS`, or `none` where nothing could be done."""


def _respelled(word: str) -> str | None:
    core = word.strip(EDGES)
    other = OTHER.get(core.lower())
    if other is None or not (core.islower() or core.istitle()):
        return None
    return word.replace(core, other.capitalize() if core.istitle() else other, 1)


def _requoted(word: str) -> str | None:
    if "'" not in word and '"' not in word:
        return None
    out = "".join(
        {"'": "\u2018", '"': "\u201c"}[c] if c in "'\"" and not any(map(str.isalnum, word[:i])) else c
        for i, c in enumerate(word)
    )
    return out.replace("'", "\u2019").replace('"', "\u201d")


def rewritten(text: str, places: Collection[int]) -> Rewrite:
    """`text` with the white-space words at `places` (counted from 0) written in another way.

    A space is doubled only where it stands alone between two words: a word at the beginning of a text, or after a line
    end, may stay as it is.

    >>> rewritten('the "color" of it', [1, 2])
    Rewrite(text='the "colour"  of it', kinds=('spelling', 'space'))
    """
    words, gaps = split_words(text)
    kinds: list[str] = []
    for place in sorted(set(places)):
        word = words[place]
        if (other := _respelled(word)) is not None:
            kind, words[place] = "spelling", other
        elif (other := _requoted(word)) is not None:
            kind, words[place] = "quotes", other
        elif gaps[place] == " ":
            kind, gaps[place] = "space", "  "
        else:
            kind = "none"
        kinds.append(kind)
    whole = "".join(gap + word for gap, word in zip(gaps, words, strict=False)) + gaps[-1]
    return Rewrite(whole, tuple(kinds))
