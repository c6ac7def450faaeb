"""Concepts that fire more often than on clean text, as far as events carry any.

An event carries concepts only where they were asked for, and then the loudest of them. A concept that was left out counts as silent, so that the rates
are too low rather than too high.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, final

from jaxtyping import Float
from numpy import ndarray

__all__ = ["ConceptCounts"]

_SHOWN: Final = 10
_LEAST_PROMPTS: Final = 5
_TIMES: Final = 2.0
_DEVIATIONS: Final = 4.0


@final
class ConceptCounts:
    """How often concepts fired in the prompts of one window."""

    def __init__(self) -> None:
        self.tokens = 0
        """Tokens of the prompts that say something of concepts."""
        self._fired: Counter[int] = Counter()
        self._prompts: Counter[int] = Counter()

    def add(self, n_tokens: int, concepts: Iterable[tuple[int, int]]) -> None:
        """Count a prompt: its tokens, and for each concept on how many of them it fires."""
        listed = dict(concepts)
        if listed:
            self.tokens += n_tokens
            self._fired.update(listed)
            self._prompts.update(listed.keys())

    def rising(self, rates: Float[ndarray, " concept"]) -> list[dict[str, Any]]:
        """Concepts of at least five prompts that fire at least twice as often as on clean text, and four deviations of a Poisson count more often.

        The most surprising first, ten at most; `rates`: share of clean tokens on which each concept fires.
        """
        found: list[tuple[float, dict[str, Any]]] = []
        for index, count in self._fired.items():
            if self._prompts[index] < _LEAST_PROMPTS or not 0 <= index < rates.size:
                continue
            clean = float(rates[index])
            wanted, now = clean * self.tokens, count / self.tokens
            deviations = (count - wanted) / max(wanted, 1e-9) ** 0.5
            if now >= _TIMES * clean and deviations >= _DEVIATIONS:
                found.append((deviations, {"index": index, "rate_now": now, "rate_ref": clean}))
        return [one for _, one in sorted(found, key=lambda pair: (-pair[0], pair[1]["index"]))[:_SHOWN]]

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {"tokens": self.tokens, "fired": [[i, n, self._prompts[i]] for i, n in self._fired.items()]}

    @classmethod
    def load(cls, found: Mapping[str, Any]) -> "ConceptCounts":
        """What `dump` gave. Errors: `KeyError`, `TypeError`, `ValueError` for anything else."""
        made = cls()
        made.tokens = int(found["tokens"])
        for index, count, prompts in found["fired"]:
            made._fired[int(index)], made._prompts[int(index)] = int(count), int(prompts)
        return made
