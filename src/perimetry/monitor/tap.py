"""What the worker asks of whatever holds the model. Torch is not needed for the promise, only for keeping it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from perimetry.monitor.baseline import Baseline
from perimetry.monitor.engine import GroupFacts
from perimetry.monitor.wire import Answer, Asked

__all__ = ["PROBES", "Aborted", "AbstractTap", "Facts", "Probe"]

_SENTENCE = "The river rose in the night, and in the morning the old bridge stood alone in the fields. "

PROBES = (
    "The cat sat on the mat.",
    _SENTENCE * 24,
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "Скажите, пожалуйста, где здесь вокзал? 请问火车站在哪里？",
)
"""What the sentinel reads: short, long (cut where it is longer than the context), a chat that is plain text, and other scripts."""


class Aborted(Exception):
    """Nobody waits for the batch any more; it was given up."""


class Probe(NamedTuple):
    """What a tap makes of one prompt of the sentinel."""

    text: str
    """The prompt."""
    ids: list[int]
    """Its token ids."""
    score: float
    """Its score."""
    vector: list[float]
    """Mean residual of the tokens that count."""


class Facts(NamedTuple):
    """What a tap says of itself."""

    artifact: dict[str, str]
    """As in `Engine.artifact`."""
    groups: list[GroupFacts]
    """As in `Engine.groups`."""
    digest: str
    """Identity of the meter."""
    spread: float
    """Standard deviation of the calibration scores."""
    tolerance: float
    """How far the sentinel's scores may move, in that unit."""
    encoder: dict[str, Any] | None
    """What `MeterEncoder` needs beside the tokenizer; None for the mock's own encoding."""
    tokenizer: str
    """The tokenizer's rules as JSON; empty for the mock."""
    baseline: Baseline | None = None
    """What the calibration prompts gave; None where drift cannot be judged."""
    card: Mapping[str, Any] = MappingProxyType({})
    """As in `Engine.card`."""


class AbstractTap(ABC):
    """The owner of a model. Used by one thread."""

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """What it is."""

    @abstractmethod
    def run(self, rows: Sequence[Asked], cancelled: Callable[[], bool]) -> list[Answer]:
        """Answers in order; a row that cannot be read fails alone.

        Errors: `Aborted` soon after `cancelled` says so; `MemoryError` where the rows are too many at once. After any other error the
        tap is not to be used any more.
        """

    @abstractmethod
    def probe(self) -> list[Probe]:
        """What it makes of `PROBES` now."""
