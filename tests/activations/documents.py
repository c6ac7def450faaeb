"""Small seeded documents."""

import random
from typing import NamedTuple

WORDS = ["the", "cat", "and", "ranting", "of", "streets", "Winter", "ends.", "Ships", "sail?", "toast", "in"]


class Doc(NamedTuple):
    id: str
    text: str


def make_documents(n: int, seed: int = 0, longest: int = 60) -> list[Doc]:
    rng = random.Random(seed)
    return [Doc(f"d{i}", " ".join(rng.choice(WORDS) for _ in range(rng.randint(5, longest)))) for i in range(n)]
