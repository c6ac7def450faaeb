"""Rows that wait, and which of them go together: the earliest deadline first, then rows of like length. Knows no clock."""

import heapq
import itertools
import math
from typing import final

from perimetry.monitor.config import BatchConfig
from perimetry.monitor.rows import Ticket

__all__ = ["Batcher"]


@final
class Batcher:
    """The queue. Taking a row out costs the same however many wait."""

    def __init__(self, config: BatchConfig) -> None:
        self.config = config
        self.tokens = 0
        """Tokens that wait."""
        self._waiting: dict[int, Ticket] = {}
        self._place: dict[Ticket, int] = {}
        self._by_deadline: list[tuple[float, int]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._place

    @property
    def tickets(self) -> list[Ticket]:
        """All that wait, in the order in which they came."""
        return list(self._waiting.values())

    @property
    def full(self) -> bool:
        """Whether what waits fills a batch."""
        return len(self) >= self.config.rows or self.tokens >= self.config.tokens

    @property
    def oldest(self) -> float:
        """When the row that has waited longest came; infinite where none waits."""
        return next(iter(self._waiting.values())).queued_at if self._waiting else math.inf

    @property
    def batches(self) -> int:
        """How many batches it takes at least to empty the queue."""
        return max(math.ceil(len(self) / self.config.rows), math.ceil(self.tokens / self.config.tokens))

    def add(self, ticket: Ticket, now: float) -> None:
        """Let a row wait."""
        number = next(self._numbers)
        ticket.stage, ticket.queued_at = "queued", now
        self._waiting[number], self._place[ticket] = ticket, number
        heapq.heappush(self._by_deadline, (ticket.deadline, number))
        self.tokens += ticket.tokens

    def remove(self, ticket: Ticket) -> None:
        """Take a row out; nothing where it does not wait."""
        number = self._place.pop(ticket, None)
        if number is None:
            return
        del self._waiting[number]
        self.tokens -= ticket.tokens
        # The heap keeps the dead until they come up, but never more of them than of the living.
        if len(self._by_deadline) > 2 * len(self._waiting) + 16:
            self._by_deadline = [entry for entry in self._by_deadline if entry[1] in self._waiting]
            heapq.heapify(self._by_deadline)

    def cost(self, lengths: list[int]) -> int:
        """Tokens that the model has to go through for rows of these lengths, padding included where rows are padded."""
        return sum(lengths) if self.config.mode == "exact" else len(lengths) * max(lengths, default=0)

    def take(self) -> list[Ticket]:
        """The next batch, which then waits no more: the most urgent row and those of the nearest lengths that fit.

        Empty where nothing waits.
        """
        while self._by_deadline and self._by_deadline[0][1] not in self._waiting:
            heapq.heappop(self._by_deadline)
        if not self._by_deadline:
            return []
        head = self._waiting[self._by_deadline[0][1]]
        others = sorted(
            (t for t in self._waiting.values() if t is not head),
            key=lambda t: (abs(t.tokens - head.tokens), t.deadline),
        )
        batch, lengths = [head], [head.tokens]
        for ticket in others:
            if len(batch) >= self.config.rows:
                break
            if self._fits([*lengths, ticket.tokens]):
                batch.append(ticket)
                lengths.append(ticket.tokens)
        for ticket in batch:
            self.remove(ticket)
        return batch

    def _fits(self, lengths: list[int]) -> bool:
        cost = self.cost(lengths)
        return cost <= self.config.tokens and cost - sum(lengths) <= self.config.padding * cost
