"""Small texts for the tests of suites."""

import random

from perimetry.assets.documents import Document

VOCABULARY = [
    "the",
    "river",
    "runs",
    "past",
    "old",
    "mills",
    "and",
    "quiet",
    "gardens",
    "where",
    "people",
    "talk",
    "about",
    "weather",
    "harvest",
    "music",
    "bread",
    "ships",
    "letters",
    "winter",
    "stones",
    "lamps",
    "roads",
    "children",
    "teachers",
    "bridges",
    "markets",
    "horses",
    "clouds",
    "engines",
    "paper",
    "glass",
]


def prose(seed: int, words: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(VOCABULARY) for _ in range(words))


def documents(name: str, count: int, words: int, **meta: str) -> list[Document]:
    return [Document(f"{name}{i}", prose(hash_of(name) + i, words + i % 7), dict(meta)) for i in range(count)]


def hash_of(name: str) -> int:
    return sum(ord(letter) * 1000 for letter in name)


def length(text: str) -> int:
    """A tokenizer of sorts: a token for every four characters of a word."""
    return sum((len(word) + 3) // 4 for word in text.split())


def read(name: str) -> list[Document]:
    """Stands for `read_texts`: forty texts of any name, half of each label, with a family."""
    meta = {"family": name.rpartition("/")[2], "dataset": name.rpartition("/")[2]}
    end = "\nA: as it was" if name.endswith("sciq_tf") else ""
    return [
        Document(
            f"{name}/{i}",
            prose(hash_of(name) + i, 12 + i % 9) + end,
            {**meta, "label": ("bigram", "0")[i % 2], "answer": "so it is"},
        )
        for i in range(40)
    ]
