"""What training asks of the place where its activations come from: a store on disk, or a live model."""

import itertools
from collections.abc import Generator, Iterator, Sized
from typing import Any, NamedTuple, Protocol, final, runtime_checkable

import torch

from perimetry.axes import Acts, Read, Rows
from perimetry.errors import ConfigError, Incompatible, TooFewSamples
from perimetry.train.ahead import ReadAhead
from perimetry.train.fits import require_finite
from perimetry.train.recipe import TrainConfig

__all__ = ["AHEAD", "Feed", "Held", "Paired", "Restorable", "Source", "View"]

AHEAD = 2
"""Batches that are read ahead where nothing else is said."""


@runtime_checkable
class Source(Protocol):
    """A stream of activations that can be entered at any step; with a `len`, that many rows make an epoch."""

    def batches(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[Acts]:
        """Batches of `batch` rows in float32, shuffled by `seed`, from step `start_step` on.

        The batch of a step depends on `batch`, `seed` and the step alone, bit for bit: that is what makes a resumed
        training equal to an uninterrupted one.
        """
        ...


@runtime_checkable
class Restorable(Protocol):
    """A source that goes on from a step more cheaply once it is told what it knew there."""

    def state(self) -> dict[str, Any]:
        """Plain JSON values."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a `state()`. Errors: `Incompatible` when it is of other data."""
        ...


@runtime_checkable
class Paired(Protocol):
    """A source that can give adjacent tokens side by side, as a store on disk can."""

    def pairs(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[Acts]:
        """As `batches`, save that rows 2i and 2i + 1 of a batch are two tokens of which one follows the other."""
        ...


class Held(NamedTuple):
    """Tokens for the threshold and the measures at the end."""

    acts: Acts
    """Raw activations."""
    unseen: bool | None
    """Whether training never saw them; None where the source does not tell its length, or where rows are in two pairs."""


class View(NamedTuple):
    """The columns of a source's rows that one SAE is trained on.

    >>> View(((4, 6), (0, 1))).of(torch.arange(6.0)[None])
    tensor([[4., 5., 0.]])
    """

    spans: tuple[tuple[int, int], ...] | None = None
    """First and last column (excluded) of each part, in the order in which the SAE wants them; None is all."""

    def of(self, rows: Rows) -> Read:
        """Those columns, side by side."""
        if self.spans is None:
            return rows
        # In one piece even where one span would do: sums over strided rows differ in their last bits.
        return torch.cat([rows[:, start:stop] for start, stop in self.spans], 1)


@final
class Feed:
    """The batches of one training in order, each read once: those of the fits are handed out again as the first ones.

    `ahead` batches are read by another thread while the trainer is busy; 0 reads each when it is asked for.
    """

    def __init__(self, source: Source, config: TrainConfig, ahead: int = 0) -> None:
        self.source, self.config, self.ahead = source, config, ahead
        self._head: list[Acts] = []
        self._batches: Iterator[Acts] | None = None
        self._next = 0

    def restore(self, state: dict[str, Any] | None) -> None:
        """Tell the source what a checkpoint knew of it. Errors: `ConfigError` when that is of other data."""
        if state is None or not isinstance(self.source, Restorable):
            return
        try:
            self.source.restore(state)
        except Incompatible as error:
            raise ConfigError(f"the checkpoint was made on other data: {error}") from error

    def state(self) -> dict[str, Any] | None:
        """What a checkpoint must know of the source."""
        if isinstance(self._batches, ReadAhead) and self._batches.state is not None:
            return self._batches.state
        return self._ask()

    def _ask(self) -> dict[str, Any] | None:
        return self.source.state() if isinstance(self.source, Restorable) else None

    def first(self) -> Acts:
        """The batch of step 0, which stands for the data in a checkpoint. Errors: `TooFewSamples`."""
        if not self._head:
            self._head = self._read(0, 1)
            if not self._head:
                raise TooFewSamples("the source gave no batch; give more text")
        return self._head[0]

    def sample(self) -> Acts:
        """The first batches, for the fits of scale and centre."""
        if len(self._head) < self._count(self.config.fit_tokens):
            self._head = self._read(0, self._count(self.config.fit_tokens))
        self.first()
        return torch.cat(self._head)[: self.config.fit_tokens]

    def _count(self, tokens: int) -> int:
        return -(-tokens // self.config.batch)

    def _open(self, step: int) -> Iterator[Acts]:
        batches = self._of_source(step)
        return ReadAhead(batches, self._ask, self.ahead) if self.ahead else batches

    def _of_source(self, step: int) -> Iterator[Acts]:
        config = self.config
        if not config.paired:
            return self.source.batches(config.batch, config.data_seed, step)
        if not isinstance(self.source, Paired):
            raise ConfigError(
                f"smooth wants pairs of adjacent tokens and {type(self.source).__name__} gives none; train from a store of "
                "activations instead, or set smooth = 0"
            )
        return self.source.pairs(config.batch, config.data_seed, step)

    def _read(self, start: int, count: int) -> list[Acts]:
        self.close()
        self._batches = self._open(start)
        self._next = start + count
        return list(itertools.islice(self._batches, count))

    def take(self, step: int) -> Acts:
        """The batch of `step`. Errors: `TooFewSamples` when the source has ended, `NonFinite`."""
        if step < len(self._head):
            return self._finite(self._head[step], step)
        self._head = []  # the fits are over: as many rows as they needed would lie in memory for the whole run
        if self._batches is None or self._next != step:
            self.close()
            self._batches = self._open(step)
            self._next = step
        acts = next(self._batches, None)
        self._next += 1
        if acts is None:
            raise TooFewSamples(
                f"the source ended at step {step} of {self.config.steps}; give more text, or tokens = "
                f"{max(1, step * self.config.batch)}"
            )
        return self._finite(acts, step)

    @staticmethod
    def _finite(acts: Acts, step: int) -> Acts:
        acts = acts.float()
        require_finite(acts, f"step {step}")
        return acts

    def held_out(self) -> Held:
        """The tokens after the budget; where the source has ended, those of the fits."""
        config = self.config
        parts: list[Acts] = []
        for step in range(config.steps, config.steps + self._count(config.threshold_tokens)):
            try:
                parts.append(self.take(step))
            except TooFewSamples:
                break
        if not parts:
            return Held(self.sample().float(), unseen=False)
        if config.paired or not isinstance(self.source, Sized):
            return Held(torch.cat(parts), unseen=None)
        return Held(torch.cat(parts), unseen=len(self.source) >= (config.steps + len(parts)) * config.batch)

    def close(self) -> None:
        """Stop the source's reader, if it has one."""
        if isinstance(self._batches, ReadAhead | Generator):
            self._batches.close()
        self._batches = None
