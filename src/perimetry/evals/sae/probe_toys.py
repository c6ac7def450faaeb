"""Two made-up labelled sets: a trial of probing that needs no asset, and no evidence about a dictionary."""

import random
from typing import Final

from perimetry.assets import Document

__all__ = ["TOYS", "toy"]

PLACES: Final = ("the hill", "the old bridge", "a narrow lane", "the market", "the quiet lake", "a field of wheat")
SIZES: Final = ("large", "small", "new", "strange", "plain")
WHEN: Final = ("in spring", "at noon", "before dawn", "after the rain", "every Friday", "once a year")
TOYS: Final = {
    "toy_animals": (
        ("dog", "grey cat", "old horse", "young goat", "swallow"),
        ("lamp", "wooden chair", "bottle", "rusty gate", "kettle"),
    ),
    "toy_moods": (
        ("happy", "laughing", "cheerful", "proud", "merry"),
        ("weeping", "silent", "gloomy", "angry", "tired"),
    ),
}
"""Name, and how the sentences of its two classes end."""
ROWS: Final = 160


def toy(name: str) -> list[Document]:
    """160 sentences of a set in `TOYS`, half of each class (`label` 0 and 1), in random order; some occur twice."""
    rng = random.Random(f"toy:{name}")
    made = [
        (
            f"{rng.choice(WHEN)} by {rng.choice(PLACES)} stood something {rng.choice(SIZES)}: the {rng.choice(ends)}",
            str(label),
        )
        for label, ends in enumerate(TOYS[name])
        for _ in range(ROWS // 2)
    ]
    rng.shuffle(made)
    return [Document(f"{name}/{i}", text, {"dataset": name, "label": label}) for i, (text, label) in enumerate(made)]
