"""Negatives of the length of a shifted text: drawn from passages, prompts and role plays, nearest first."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from perimetry.assets.documents import Document
from perimetry.suites.base import Case, Length, compare_lengths
from perimetry.suites.passages import cut_to_tokens
from perimetry.suites.role_play import role_play

__all__ = [
    "CUT",
    "SHORTEST",
    "TOLERANCE",
    "Closest",
    "Maker",
    "Matched",
    "Passages",
    "Prompts",
    "RolePlays",
    "match",
    "spread",
]

TOLERANCE = 0.1
"""A negative differs from its shifted text by at most this share of that text's tokens."""
SHORTEST = 8
"""Texts of fewer tokens are left out: whole words cannot match their length."""
CUT = "#cut"
"""Ends the id of a case whose text was cut to the token limit."""
DRAWS = 40
"""Most texts tried for one negative."""
ENOUGH = 6
"""Texts within the tolerance after which the nearest one is taken."""


@runtime_checkable
class Maker(Protocol):
    """A source of negatives of one kind."""

    def draw(self, target: int, tolerance: float) -> str | None:
        """A text of `target` tokens, more or less by the share `tolerance`; None where there is none."""
        ...


class Matched(NamedTuple):
    """Negatives and how well they match."""

    cases: list[Case]
    """One negative for each shifted text and maker, where one was found; the name of the maker is its family."""
    rows: list[dict[str, Any]]
    """For each maker how many found none, and the lengths on both sides."""


def match(shifted: Sequence[Case], makers: Mapping[str, Maker], *, tolerance: float, length: Length) -> Matched:
    """Draw the negatives of all shifted texts, one maker after the other."""
    found = Matched([], [])
    for family, maker in makers.items():
        pairs: list[tuple[Case, Case]] = []
        for case in shifted:
            text = maker.draw(length(case.text), tolerance)
            if text is not None:
                pairs.append((case, Case(f"{case.pair}/{family}", text, case.pair, family, 0.0, shifted=False)))
        lengths = compare_lengths([a.text for a, _ in pairs], [b.text for _, b in pairs], length) if pairs else {}
        found.rows.append({"negatives": family, "unmatched": len(shifted) - len(pairs), **lengths})
        found.cases.extend(negative for _, negative in pairs)
    return found


def spread(documents: Sequence[Document], length: Length, limit: int, n: int, rng: random.Random) -> list[Case]:
    """At most `n` shifted cases, cut to `limit` tokens, one of each family (`meta["family"]`) in turn."""
    families: dict[str, list[Document]] = {}
    for document in documents:
        families.setdefault(str(document.meta.get("family", "unknown")), []).append(document)
    for family in families.values():
        rng.shuffle(family)
    found: list[Case] = []
    for turn in range(max(map(len, families.values()), default=0)):
        for name, family in sorted(families.items()):
            if turn < len(family) and len(found) < n:
                case = _shifted(family[turn], name, length, limit)
                found += [case] if length(case.text) >= SHORTEST else []
    return found


def _shifted(document: Document, family: str, length: Length, limit: int) -> Case:
    text = cut_to_tokens(document.text, limit, length)
    name = document.id + (CUT if text != document.text else "")
    return Case(name, text, document.id, family, 1.0, shifted=True)


class Closest:
    """Keeps the text whose length is nearest to a target, among those within the tolerance."""

    def __init__(self, target: int, tolerance: float, length: Length) -> None:
        self.target = target
        self.miss = tolerance * target
        self.length = length
        self.text: str | None = None
        self.good = 0

    def offer(self, text: str | None) -> bool:
        """True when `text` is the nearest so far."""
        miss = abs(self.length(text) - self.target) if text else self.miss + 1
        self.good += miss <= self.miss
        if miss > self.miss or (self.text is not None and miss >= self.miss):
            return False
        self.text, self.miss = text, miss
        return True

    @property
    def done(self) -> bool:
        """True when nothing nearer is worth the search."""
        return self.miss == 0 or self.good >= ENOUGH


class Passages:
    """Passages of running text, from a random word of a random document on."""

    def __init__(self, documents: Sequence[Document], length: Length, rng: random.Random) -> None:
        self.documents = list(documents)
        self.length = length
        self.rng = rng

    def draw(self, target: int, tolerance: float) -> str | None:
        """The nearest of the texts tried, None where none is near enough."""
        best = Closest(target, tolerance, self.length)
        for _ in range(DRAWS if self.documents else 0):
            words = self.rng.choice(self.documents).text.split(" ")
            start = self.rng.randrange(max(1, len(words) - target // 2))
            # A word has a token or more, so `target` words are enough.
            best.offer(cut_to_tokens(" ".join(words[start : start + target]).strip(), target, self.length))
            if best.done:
                break
        return best.text


class Prompts:
    """Benign texts, each used once: as they are where the length is right, else longer ones, cut."""

    def __init__(self, documents: Sequence[Document], length: Length, rng: random.Random) -> None:
        lengths = [(length(document.text), rng.random(), document) for document in documents]
        self.left = sorted(lengths, key=lambda entry: entry[:2])
        self.length = length

    def draw(self, target: int, tolerance: float) -> str | None:
        """The nearest of the texts tried, None where none is near enough."""
        best, used = Closest(target, tolerance, self.length), -1
        nearest = min(range(len(self.left)), key=lambda i: abs(self.left[i][0] - target), default=-1)
        if nearest >= 0 and best.offer(self.left[nearest][2].text):
            used = nearest
        for i in [i for i, (tokens, *_) in enumerate(self.left) if tokens > target][:DRAWS]:
            if best.done:
                break
            if best.offer(cut_to_tokens(self.left[i][2].text, target, self.length)):
                used = i
        if used >= 0:
            self.left.pop(used)
        return best.text


class RolePlays:
    """Benign instructions around benign texts."""

    def __init__(self, documents: Sequence[Document], length: Length, rng: random.Random) -> None:
        self.documents = list(documents)
        self.length = length
        self.rng = rng

    def draw(self, target: int, tolerance: float) -> str | None:
        """The nearest of the texts tried, None where none is near enough."""
        best = Closest(target, tolerance, self.length)
        for _ in range(DRAWS):
            best.offer(role_play(self.documents, target, length=self.length, rng=self.rng))
            if best.done:
                break
        return best.text
