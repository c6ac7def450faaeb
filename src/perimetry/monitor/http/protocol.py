"""uvicorn's HTTP/1.1 protocol with two clocks that it has not: one for the head of a request, one for a client that does not read."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["GuardedProtocol", "guarded"]


class GuardedProtocol(H11Protocol):
    """Closes a connection whose next head is not complete in time, and one whose client lets answers pile up."""

    head_s: float = 10.0
    """Seconds for a head, from the connection, or from its first byte on a connection that is used again."""
    stalled_s: float = 5.0
    """Seconds for which a full buffer may wait to be read."""

    _head: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client: its head is awaited."""
        super().connection_made(transport)
        self._head = self.loop.call_later(self.head_s, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Bytes: a head is awaited still, or not any more."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head = _stopped(self._head)
        elif self._head is None and not self.transport.is_closing():
            self._head = self.loop.call_later(self.head_s, self._give_up)

    def handle_events(self) -> None:
        """Requests that have come, also those that waited behind another: theirs are complete heads."""
        super().handle_events()
        if self.conn.their_state is not h11.IDLE:
            self._head = _stopped(self._head)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._head, self._stalled = _stopped(self._head), _stopped(self._stalled)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.stalled_s, self._give_up)

    def resume_writing(self) -> None:
        """It has caught up."""
        self._stalled = _stopped(self._stalled)
        super().resume_writing()

    def _give_up(self) -> None:
        # Not close(): that waits until what is buffered has been read, which is what does not happen.
        self.transport.abort()


def _stopped(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def guarded(head_s: float, stalled_s: float) -> type[GuardedProtocol]:
    """The protocol with these times in seconds, for uvicorn's `http`."""
    return type("GuardedProtocol", (GuardedProtocol,), {"head_s": head_s, "stalled_s": stalled_s})
