"""What becomes of one text: admitted, tokenised, queued, running, settled. Its room is given back once, when it is settled."""

from collections.abc import Callable
from typing import Literal, final

from perimetry.monitor.encoding import Encoded
from perimetry.monitor.engine import Row, Scored
from perimetry.monitor.problems import Problem

__all__ = ["Outcome", "Room", "Stage", "Ticket"]

Stage = Literal["admitted", "tokenised", "queued", "running", "settled"]
"""Where a row is."""
Outcome = Literal["ok", "expired", "cancelled", "failed"]
"""How it ended."""


@final
class Room:
    """How many rows and tokens may be in the service at once, and how many are."""

    def __init__(self, rows: int, tokens: int) -> None:
        self.most_rows = rows
        self.most_tokens = tokens
        self.rows = 0
        """Rows that were let in and have no answer yet."""
        self.tokens = 0
        """Tokens of those of them that are tokenised."""

    def enter(self, rows: int) -> None:
        """Let so many rows in, all or none. Errors: `Problem` of `queue-full`."""
        if self.rows + rows > self.most_rows:
            raise Problem("queue-full", f"{self.rows} of {self.most_rows} rows are taken and {rows} more came.")
        self.rows += rows

    def fill(self, tokens: int) -> None:
        """Count the tokens of rows that are in. Errors: `Problem` of `queue-full`, with nothing counted."""
        if self.tokens + tokens > self.most_tokens:
            raise Problem("queue-full", f"{self.tokens} of {self.most_tokens} tokens are taken and {tokens} more came.")
        self.tokens += tokens

    def leave(self, tokens: int) -> None:
        """Give back the room of one row and of its tokens."""
        self.rows -= 1
        self.tokens -= tokens
        assert self.rows >= 0, "a row left twice"
        assert self.tokens >= 0, "tokens left twice"


@final
class Ticket:
    """One row on its way through the service. `Room.enter` let it in; settling it gives the room back."""

    def __init__(self, row: Row, deadline: float, room: Room) -> None:
        self.row = row
        self.deadline = deadline
        """On the clock of the event loop, in seconds."""
        self.stage: Stage = "admitted"
        self.outcome: Outcome | None = None
        self.result: Scored | None = None
        self.problem: Problem | None = None
        self.tokens = 0
        """Its length, once it is known."""
        self.encoded: Encoded | None = None
        """Its token ids, once there are any."""
        self.queued_at = 0.0
        """When it came into the queue, on the same clock."""
        self.batch = 0
        """Number of the batch that it runs in; 0 while it is in none."""
        self.listeners: list[Callable[[Ticket], None]] = []
        """Called once, when it is settled."""
        self._room = room

    @property
    def settled(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.stage == "settled"

    def tokenised(self, encoded: Encoded) -> None:
        """Its token ids are known. The room was filled with so many tokens beforehand."""
        self.stage, self.encoded, self.tokens = "tokenised", encoded, len(encoded.ids)

    def settle(self, outcome: Outcome, *, result: Scored | None = None, problem: Problem | None = None) -> bool:
        """End it and give its room back; False, and nothing else, where it has ended before."""
        if self.settled:
            return False
        self.stage, self.outcome, self.result, self.problem = "settled", outcome, result, problem
        self._room.leave(self.tokens)
        for listener in self.listeners:
            listener(self)
        return True
