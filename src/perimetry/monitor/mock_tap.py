"""A tap without a model, for tests of everything around one. A prompt may tell it how to misbehave.

`mock:sleep=S` holds the worker for S seconds, whoever waits; `mock:slow=S` too, but it lets itself be given up; `mock:p=P` gives that
p-value; `mock:nan`, `mock:raise`, `mock:exit`, `mock:memory` (whatever the batch) and `mock:crowd` (memory for one row at a time) do what they say.
"""

import array
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Final, final

from perimetry.monitor.baseline import Baseline
from perimetry.monitor.engine import ConceptScored, GroupFacts
from perimetry.monitor.tap import PROBES, Aborted, AbstractTap, Facts, Probe
from perimetry.monitor.wire import Answer, Asked

__all__ = ["MOCK_N", "MockTap", "mock_score"]

MOCK_N: Final = 999
"""Calibration prompts that the mock says to have."""
_STEP: Final = 0.002
_COMMAND: Final = "mock:"


def mock_score(text: str) -> float:
    """The score that the mock gives a text: in [0, 1), from its characters alone.

    >>> mock_score("ab")
    0.195
    """
    return sum(map(ord, text)) % 1000 / 1000


def _command(text: str) -> tuple[str, float]:
    """What a text tells the mock to do, and its number."""
    if not text.startswith(_COMMAND):
        return "", 0.0
    name, _, number = text.removeprefix(_COMMAND).partition(" ")[0].partition("=")
    return name, float(number or 0)


@final
class MockTap(AbstractTap):
    """Takes its time for a batch, and then counts characters."""

    def __init__(self, seconds: float, alpha: float) -> None:
        self._seconds = seconds
        self._alpha = alpha

    @property
    def facts(self) -> Facts:
        """A meter that there is not."""
        names = ("model_rev", "tap", "sae_sha256", "calibration_sha256", "dtype", "backend", "batching", "meter")
        k = math.floor(self._alpha * (MOCK_N + 1) + 1e-9)
        group = GroupFacts("pooled", MOCK_N, 1 / (MOCK_N + 1), 1 - k / (MOCK_N + 1), 0.0, 1.0)
        clean = array.array("f", [i / MOCK_N for i in range(MOCK_N)])
        own = array.array("i", [0] * MOCK_N)
        baseline = Baseline(("pooled",), own, 1, clean, array.array("f"), "the mock has no model to summarise")
        return Facts(dict.fromkeys(names, "mock"), [group], "mock", 1.0, 0.0, None, "", baseline=baseline)

    def run(self, rows: Sequence[Asked], cancelled: Callable[[], bool]) -> list[Answer]:
        """As promised."""
        texts = ["".join(map(chr, row.ids)) for row in rows]
        commands = [_command(text) for text in texts]
        self._wait(self._seconds, cancelled)
        for name, number in commands:
            if name == "sleep":
                time.sleep(number)
            elif name == "slow":
                self._wait(number, cancelled)
            elif name == "exit":
                os._exit(3)
            elif name == "raise":
                raise RuntimeError("the mock was told to raise")
            elif name == "memory" or (name == "crowd" and len(rows) > 1):
                raise MemoryError
        return [self._answer(*each) for each in zip(rows, texts, commands, strict=True)]

    def _answer(self, row: Asked, text: str, command: tuple[str, float]) -> Answer:
        score = math.nan if command[0] == "nan" else mock_score(text)
        p = command[1] if command[0] == "p" else (1 + math.floor((1 - mock_score(text)) * MOCK_N)) / (MOCK_N + 1)
        hot = tuple(ord(c) % 100 / 100 for c in text) if row.tokens else ()
        loud = tuple(
            ConceptScored(i, None, 1.0 / (i + 1), 1, i % len(row.ids), (f"context «{i}»",)) for i in range(row.concepts)
        )
        return Answer(
            score=score,
            p_value=p,
            group="pooled",
            n=MOCK_N,
            counted=(True,) * len(row.ids),
            token_scores=hot,
            concepts=loud,
            summary=(score,),
        )

    def _wait(self, seconds: float, cancelled: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if cancelled():
                raise Aborted
            time.sleep(min(left, _STEP))

    def probe(self) -> list[Probe]:
        """The mock's own scores."""
        return [Probe(text, [ord(c) for c in text], mock_score(text), [1.0]) for text in PROBES]
