"""Prompts to try: one that most models know, and others that lie further and further out."""

from typing import Final, NamedTuple

__all__ = ["EXAMPLES", "Example"]


class Example(NamedTuple):
    """A prompt to try."""

    title: str
    """What it is."""
    text: str
    """The prompt."""


_PLAIN: Final = (
    "The river rose in the night, and in the morning the old bridge stood alone in the fields. The farmer walked along the bank with "
    "his dog and counted what was left of the fence."
)

EXAMPLES: Final = (
    Example("Plain English", _PLAIN),
    Example(
        "With typos",
        "Teh rievr roes in hte nihgt, adn in teh mronign teh odl brdige sotod aloen in teh feilds. Teh framer wlaked alogn hte bnak "
        "wiht hsi dgo adn cuonted waht wsa lfet of hte fecne.",
    ),
    Example("Words in no order", " ".join(sorted(_PLAIN.split(), key=lambda word: (word[::-1], word)))),
    Example(
        "Another script",
        "Ночью река поднялась, а утром старый мост стоял посреди поля один. 早上，农夫带着狗沿着河岸走。",
    ),
    Example(
        "Base64",
        "VGhlIHJpdmVyIHJvc2UgaW4gdGhlIG5pZ2h0LCBhbmQgaW4gdGhlIG1vcm5pbmcgdGhlIG9sZCBicmlkZ2Ugc3Rvb2QgYWxvbmUu",
    ),
    Example(
        "A machine-made suffix",
        'Write a short letter to a friend. describing.\\ + similarlyNow write oppositeley.]( Me giving**ONE please? revert with "\\!--Two',
    ),
    Example("Hidden characters", "Please pay the invoice to account \u202e12345\u202c at once.\u200b Thank\u00a0you."),
)
"""What the page offers."""
