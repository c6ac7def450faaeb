"""Mishearings of a speech recogniser at a dose: words taken for others that sound the same, or nearly so."""

import random
import re
from dataclasses import dataclass
from typing import ClassVar, final

from perimetry.perturb.base import AbstractPerturbation, rewrite
from perimetry.perturb.letters import like, lower

__all__ = ["SOUND_ALIKES", "Asr"]

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")

GROUPS = """
their there they're | to too two | for four fore | by buy bye | be bee | in inn | know no | knew new gnu | not knot
one won | our hour are | or oar ore | here hear | see sea | so sew sow | some sum | son sun | right write rite wright
would wood | which witch | whole hole | where wear were | weather whether | week weak | way weigh whey | wait weight
your you're | you ewe | its it's | whose who's | we wee | his is | has as | had add | than then | that than
this these | the a | and an end | an and | of off | off of | on own | at it | it at | been bin bean | did dead
do due dew | does dust | have of halve | from form | into onto | if is | but butt | can ken | could good | should shed
will well | may made | might mite | must mast | made maid | make mike | male mail | more moor | many any | much match
over ova | under wonder | out doubt | about a | all awl | always hallways | ate eight | air heir | aisle isle
allowed aloud | altar alter | arc ark | ascent assent | ball bawl | band banned | bare bear | base bass | beach beech
beat beet | beer bier | bell belle | berry bury | birth berth | bite byte | blew blue | board bored | bold bowled
bolder boulder | border boarder | bough bow | boy buoy | brake break | bread bred | bridal bridle | built bilt
capital capitol | caught court | cede seed | ceiling sealing | cell sell | cellar seller | cent sent scent
cereal serial | chance chants | cheap cheep | chord cord | cite site sight | city sitting | claim clam | clause claws
close clothes | coarse course | core corps | council counsel | country county | creek creak | crew cruise
current currant | days daze | dear deer | death deaf | die dye | died dyed | doe dough | draft draught | dual duel
earn urn | east yeast | every ever | eye I | face phase | faint feint | fair fare | farm firm | father farther
feat feet | fined find | fir fur | first fist | flair flare | flea flee | flew flu flue | floor flaw | flour flower
forth fourth | foul fowl | found fund | full fool | gate gait | genes jeans | gilt guilt | grate great | grown groan
guessed guest | hail hale | hair hare | hall haul | hay hey | heal heel | heard herd | high hi | higher hire
hoard horde | hoarse horse | idle idol | key quay | king kin | kernel colonel | knead need | knight night | knows nose
lain lane | land lend | last lost | later latter | law lore | lead led | leak leek | lessen lesson | life live
line lion | links lynx | loan lone | long lung | main mane | man men | marshal martial | meat meet | medal meddle
metal mettle | mind mined | miner minor | missed mist | moan mown | morning mourning | muscle mussel | name aim
naval navel | north norse | oh owe | only lonely | pail pale | pain pane | pair pear pare | part port | passed past
patience patients | pause paws | peace piece | peak peek | peer pier | place plays | plain plane | plait plate
pole poll | pore pour | pray prey | presence presents | prince prints | principal principle | profit prophet
quarts quartz | rain reign rein | raise rays | rap wrap | read red | real reel | river liver | road rode rowed
role roll | root route | rose rows | rough ruff | sail sale | scene seen | seam seem | senses census | serve surf
she sea | shore sure | side sighed | sole soul | soar sore | stair stare | stake steak | state stayed
stationary stationery | steal steel | still steel | straight strait | suite sweet | tail tale | taught taut | tea tee
team teem | tear tier | tense tents | them then | threw through | throne thrown | tide tied | time thyme | toe tow
told tolled | town down | train rain | vain vein vane | vale veil | vary very | waist waste | war wore | ware wear
warn worn | water what | waive wave | west vest | when went | while wild | white why | wine whine | world word
year ear | years ears | years yours | young yang
"""


def _sound_alikes() -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for group in GROUPS.replace("\n", " | ").split("|"):
        words = group.split()
        for word in words:
            found.setdefault(word.lower(), {}).update({other: None for other in words if other != word})
    return {word: tuple(others) for word, others in found.items() if others}


SOUND_ALIKES = _sound_alikes()
"""What a recogniser takes an English word for: homophones (`their`, `there`) and near ones (`than`, `then`), the short words of
running text among them. Written by hand from lists of homophones; it has no rates."""


@final
@dataclass(frozen=True)
class Asr(AbstractPerturbation):
    """A share of the words replaced by one that sounds alike: real words in the wrong place. Only English has a table.

    A word is a run of letters, with the apostrophes inside it. Recognisers also drop and repeat words and know neither
    capitals nor punctuation; that is left out, so that the number of words stays and the case does not give it away.
    Words outside `SOUND_ALIKES` are not eligible.

    >>> Asr().apply("Their son won the whole race", 1.0, random.Random(0))
    'There sun one a hole race'
    """

    name: ClassVar[str] = "asr"

    @classmethod
    def tiny(cls) -> "Asr":
        """The only one."""
        return cls()

    def eligible(self, text: str) -> int:
        """Words in `SOUND_ALIKES`."""
        return len(_words(text))

    def apply(self, text: str, dose: float, rng: random.Random) -> str:
        """`share(dose, eligible)` words misheard."""
        return rewrite(text, _words(text), dose, rng, _misheard)


def _key(word: str) -> str:
    return lower(word).replace("’", "'")


def _words(text: str) -> list[re.Match[str]]:
    return [word for word in WORD.finditer(text) if _key(word.group()) in SOUND_ALIKES]


def _misheard(word: str, rng: random.Random) -> str:
    return like(rng.choice(SOUND_ALIKES[_key(word)]), word)
