"""What a perturbation promises: a dial that moves a text out of distribution, a little or a lot.

The dial is the dose, the share of the eligible units (words, windows of words) that are changed. Two things hold for
every perturbation by construction, so that a benchmark need not hope for them:

* the number of changed units is exact: `share(dose, eligible)`;
* doses nest: with generators of the same seed, the units changed at a small dose are among those changed at a larger
  one, and a unit changed at both is changed in the same way. A score that counts damage is then monotone in the dose.

Both follow from drawing one key for each eligible unit, whatever the dose: the units with the smallest keys are
changed, and the key of a unit seeds how.
"""

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

from perimetry.errors import UsageError

__all__ = ["AbstractPerturbation", "chosen", "rewrite", "share", "split_words"]

P = TypeVar("P", bound="AbstractPerturbation")
CHUNK = re.compile(r"\S+")


class AbstractPerturbation(ABC):
    """One way to corrupt a text. Deterministic given the generator; dose 0 gives the text back unchanged."""

    name: ClassVar[str]
    """Name in `PERTURBATIONS`."""

    @abstractmethod
    def eligible(self, text: str) -> int:
        """Number of units of `text` that can be changed; the dose is a share of these."""

    @abstractmethod
    def apply(self, text: str, dose: float, rng: random.Random) -> str:
        """`text` with the share `dose` of its eligible units changed, at least one of them when `dose` > 0.

        White space, punctuation and the number of white-space separated words stay. A text without an eligible unit
        comes back unchanged. To get nested doses, pass a fresh generator of the same seed for each dose.
        Errors: `UsageError` when `dose` lies outside [0, 1].
        """

    @classmethod
    @abstractmethod
    def tiny(cls: type[P]) -> P:
        """An instance for the contract test of the table."""


def share(dose: float, eligible: int) -> int:
    """How many of `eligible` units a dose changes: rounded half up, at least 1 when both are positive.

    >>> share(0.1, 15), share(0.05, 3), share(0.0, 40), share(0.5, 0)
    (2, 1, 0, 0)

    Errors: `UsageError` when `dose` lies outside [0, 1].
    """
    if not 0.0 <= dose <= 1.0:
        raise UsageError(f"dose {dose} is no share; wanted a number from 0 (nothing changed) to 1 (every unit changed)")
    if dose == 0.0 or eligible == 0:
        return 0
    return max(1, int(dose * eligible + 0.5))


def chosen(dose: float, eligible: int, rng: random.Random) -> dict[int, random.Random]:
    """The units to change, each with the generator that says how; nested in the dose for one state of `rng`.

    >>> small = chosen(0.2, 10, random.Random(7))
    >>> large = chosen(0.5, 10, random.Random(7))
    >>> len(small), len(large), set(small) <= set(large)
    (2, 5, True)
    """
    keys = [rng.getrandbits(64) for _ in range(eligible)]
    order = sorted(range(eligible), key=lambda unit: (keys[unit], unit))
    return {unit: random.Random(keys[unit]) for unit in order[: share(dose, eligible)]}


def rewrite(
    text: str,
    units: Sequence[re.Match[str]],
    dose: float,
    rng: random.Random,
    edit: Callable[[str, random.Random], str],
) -> str:
    """`text` with `share(dose, len(units))` of its `units`, in order and apart from one another, edited.

    >>> rewrite("a bc d", list(CHUNK.finditer("a bc d")), 1.0, random.Random(0), lambda word, _: word.upper())
    'A BC D'
    """
    edits = chosen(dose, len(units), rng)
    parts: list[str] = []
    end = 0
    for unit in sorted(edits):
        match = units[unit]
        parts += [text[end : match.start()], edit(match.group(), edits[unit])]
        end = match.end()
    return "".join([*parts, text[end:]])


def split_words(text: str) -> tuple[list[str], list[str]]:
    """White-space separated words and the gaps around them: one gap more than words, first and last may be empty.

    >>> split_words(" a  b")
    (['a', 'b'], [' ', '  ', ''])
    """
    words: list[str] = []
    gaps: list[str] = []
    end = 0
    for match in CHUNK.finditer(text):
        words.append(match.group())
        gaps.append(text[end : match.start()])
        end = match.end()
    gaps.append(text[end:])
    return words, gaps
