"""The order of words at a dose: within windows of some words, or across the whole text."""

import random
from dataclasses import dataclass
from typing import ClassVar, final

from perimetry.errors import UsageError
from perimetry.perturb.base import AbstractPerturbation, chosen, share, split_words

__all__ = ["WordOrder"]


def _cycle(words: list[str], rng: random.Random) -> list[str]:
    """A random arrangement in which every word leaves its place (Sattolo's algorithm)."""
    mixed = list(words)
    for i in range(len(mixed) - 1, 0, -1):
        j = rng.randrange(i)
        mixed[i], mixed[j] = mixed[j], mixed[i]
    return mixed


@final
@dataclass(frozen=True)
class WordOrder(AbstractPerturbation):
    """Words moved about; no word is added, lost or changed. Words are separated by white space, which stays in place.

    With a window of w, the text is cut into runs of w words and a share of the runs is mixed, each run within itself,
    so that no word moves further than w - 1 places. With window 0 a share of all words, at least two different ones,
    trade places across the whole text. Every word of what is mixed leaves its place. Runs of one and the same word are not eligible.

    >>> WordOrder(2).apply("one two three four five", 1.0, random.Random(0))
    'two one four three five'
    """

    window: int = 0
    """Words in a run, at least 2; 0 for the whole text."""
    name: ClassVar[str] = "word_order"

    def __post_init__(self) -> None:
        if self.window < 0 or self.window == 1:
            raise UsageError(f"window {self.window} mixes nothing; wanted 2 or more words, or 0 for the whole text")

    @classmethod
    def tiny(cls) -> "WordOrder":
        """Windows of two words."""
        return cls(2)

    def eligible(self, text: str) -> int:
        """Runs of `window` words that hold two different words; with window 0 all words, when two differ."""
        words, _ = split_words(text)
        if self.window:
            return len(self._runs(words))
        return len(words) if len(set(words)) > 1 else 0

    def apply(self, text: str, dose: float, rng: random.Random) -> str:
        """`share(dose, eligible)` runs mixed; with window 0 that many words, at least two."""
        words, gaps = split_words(text)
        mixed = self._mix_runs(words, dose, rng) if self.window else self._mix_all(words, dose, rng)
        return "".join(gap + word for gap, word in zip(gaps, mixed, strict=False)) + gaps[-1]

    def _runs(self, words: list[str]) -> list[slice]:
        runs = [slice(start, start + self.window) for start in range(0, len(words), self.window)]
        return [run for run in runs if len(set(words[run])) > 1]

    def _mix_runs(self, words: list[str], dose: float, rng: random.Random) -> list[str]:
        runs = self._runs(words)
        mixed = list(words)
        for unit, how in chosen(dose, len(runs), rng).items():
            mixed[runs[unit]] = _cycle(words[runs[unit]], how)
        return mixed

    def _mix_all(self, words: list[str], dose: float, rng: random.Random) -> list[str]:
        """The chosen words pass round a ring in the order of their keys, which a larger dose only extends."""
        count = share(dose, len(words))
        if count == 0 or len(set(words)) < 2:
            return words
        order = list(chosen(1.0, len(words), rng))
        first_other = next(i for i, place in enumerate(order) if words[place] != words[order[0]])
        ring = order[: max(count, 2, first_other + 1)]
        mixed = list(words)
        for place, source in zip(ring, [*ring[1:], ring[0]], strict=True):
            mixed[place] = words[source]
        return mixed
