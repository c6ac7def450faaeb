"""What turns prompts into readings, whatever number of taps: windows of prompts, one forward pass a batch, readings in order."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.errors import ConfigError
from perimetry.shift import DETECTORS
from perimetry.shift.discoveries import with_discoveries
from perimetry.shift.evidence import Prompt, Side
from perimetry.shift.reading import Reading
from perimetry.ui import track

__all__ = ["AbstractReader", "Batch", "Depth"]

WINDOW = 128
"""Prompts that are sorted by length together: readings come in order, a window at a time."""

Captured = TypeVar("Captured")
"""What one forward pass leaves for the reader: a capture, or one of each tap."""


class Depth(NamedTuple):
    """How far the forward pass must run for some scores; without both it stops at the tap."""

    logits: bool
    """To the next-token statistics."""
    foresight: bool
    """To the last hidden state."""

    @classmethod
    def of(cls, names: Iterable[str]) -> "Depth":
        """What the detectors of these score names need.

        >>> Depth.of(["surprise.top10", "unforeseen"])
        Depth(logits=False, foresight=True)
        """
        kinds = [DETECTORS[name.partition(".")[0]] for name in names]
        return cls(any(k.needs_logits for k in kinds), any(k.needs_foresight for k in kinds))


class Batch(NamedTuple, Generic[Captured]):
    """One forward pass."""

    rows: tuple[int, ...]
    """For each prompt of the batch, its row in the sequence that was handed in."""
    captured: Captured
    """What it left at the tap or taps."""


class AbstractReader(ABC, Generic[Captured]):
    """A calibrated reader of prompts. Readings come as the prompts were given and do not depend on their neighbours."""

    digest: str
    """SHA-256 over the files of the folder that it lies in; `unsaved` where it lies in none."""

    @property
    def identity(self) -> str:
        """What readings are made with: the digest, and behind a `+` the revision of a model that carries an adapter."""
        adapted = self.lm.base_revision is not None
        return f"{self.digest}+{self.lm.revision[:12]}" if adapted else self.digest

    @property
    @abstractmethod
    def lm(self) -> LanguageModel:
        """The language model that is read."""

    @property
    @abstractmethod
    def policy(self) -> TokenPolicy:
        """Which positions count."""

    @abstractmethod
    def names(self, detectors: str | Sequence[str]) -> list[str]:
        """Score names from `main`, `all`, or a list (comma-separated in a string). Errors: `UnknownName`."""

    @abstractmethod
    def prepare(self, ids: Sequence[str], texts: Sequence[str], *, truncate: bool) -> list[Prompt]:
        """Encode texts. Errors: `EmptyText`, `PromptTooLong`, `NoScorableToken`, each naming the id."""

    @abstractmethod
    def batches(
        self, prompts: Sequence[Prompt], depth: Depth, *, batch_tokens: int, side: Side
    ) -> Iterator[Batch[Captured]]:
        """Run the model over prompts, as far as `depth` says. Errors: `NonFinite`, `NoScorableToken`."""

    @abstractmethod
    def read(
        self,
        captured: Captured,
        prompts: Sequence[Prompt],
        names: Sequence[str],
        alpha: float,
        *,
        explain: bool = False,
    ) -> list[Reading]:
        """Readings of the prompts of one forward pass, in its order."""

    def score(
        self,
        texts: Sequence[str],
        *,
        ids: Sequence[str] | None = None,
        detectors: str | Sequence[str] = "main",
        alpha: float = 0.05,
        truncate: bool = False,
        batch_tokens: int = 4096,
        explain: bool = True,
        progress: bool = False,
        side: Side = "right",
        batch_fdr: float | None = None,
    ) -> list[Reading]:
        """A reading of each text, in order; a reading does not depend on its neighbours.

        `alpha` is the false-alarm rate on clean text of the calibration's kind. With `explain` a reading carries the
        concepts that speak for its score. `batch_fdr` flags by the false discovery rate of all texts. Errors: `EmptyText`,
        `PromptTooLong`, `NoScorableToken`, `NonFinite`, `UnknownName`, `ConfigError` for an alpha outside (0, 1) or an empty
        batch.
        """
        found = self.readings(
            texts,
            ids=ids,
            detectors=detectors,
            alpha=alpha,
            truncate=truncate,
            batch_tokens=batch_tokens,
            explain=explain,
            side=side,
        )
        made = list(track(found, "reading prompts", len(texts), progress, lambda _: 1))
        return made if batch_fdr is None else with_discoveries(made, batch_fdr)

    def readings(
        self,
        texts: Sequence[str],
        *,
        ids: Sequence[str] | None = None,
        detectors: str | Sequence[str] = "main",
        alpha: float = 0.05,
        truncate: bool = False,
        batch_tokens: int = 4096,
        explain: bool = True,
        side: Side = "right",
    ) -> Iterator[Reading]:
        """As `score`, but each reading comes as soon as it and those before it are made.

        Every text is checked before the first is read, so that a bad one costs no model time. Errors: as `score`.
        """
        if not 0 < alpha < 1:
            raise ConfigError(f"alpha is {alpha}; a false-alarm rate between 0 and 1 is wanted, such as 0.05")
        if batch_tokens < 1:
            raise ConfigError(f"a batch of {batch_tokens} tokens holds nothing; wanted at least 1, such as 4096")
        names = self.names(detectors)
        prompts, depth = (
            self.prepare(ids or [str(i) for i in range(len(texts))], texts, truncate=truncate),
            Depth.of(names),
        )
        for start in range(0, len(prompts), WINDOW):
            window = prompts[start : start + WINDOW]
            found: dict[int, Reading] = {}
            for batch in self.batches(window, depth, batch_tokens=batch_tokens, side=side):
                made = self.read(batch.captured, [window[i] for i in batch.rows], names, alpha, explain=explain)
                found |= dict(zip(batch.rows, made, strict=True))
            yield from (found[i] for i in range(len(window)))
