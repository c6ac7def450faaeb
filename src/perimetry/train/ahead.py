"""A reader ahead of the trainer: a thread that makes the next batches while the present one is learned from.

The batches are those that the iterator gives, in its order; what it raises comes to the trainer at the batch where it was
raised, as it is.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, final

from perimetry.axes import Acts

__all__ = ["ReadAhead"]

POLL_S = 0.05
"""How long the reader waits for room before it looks whether anybody still wants its batches."""


class _Read(NamedTuple):
    acts: Acts | None
    state: dict[str, Any] | None
    error: BaseException | None


@final
class ReadAhead(Iterator[Acts]):
    """Batches of an iterator, at most `depth` of them made ahead; `close` ends the thread.

    `state` is called by the reader after each batch: what the source knows of its place then.
    """

    def __init__(self, batches: Iterator[Acts], state: Callable[[], dict[str, Any] | None], depth: int) -> None:
        self.state: dict[str, Any] | None = None
        """Of the source, when it had made the batch that was handed out last."""
        self._batches, self._ask = batches, state
        self._queue: queue.Queue[_Read] = queue.Queue(depth)
        self._stop = threading.Event()
        self._done = False
        self._thread = threading.Thread(target=self._run, name="read-ahead")
        self._thread.start()

    def _wanted(self) -> bool:
        # At interpreter exit nobody closes the reader, and the exit waits for this thread.
        return not self._stop.is_set() and threading.main_thread().is_alive()

    def _put(self, read: _Read) -> None:
        while self._wanted():
            try:
                self._queue.put(read, timeout=POLL_S)
            except queue.Full:
                continue
            return

    def _run(self) -> None:
        try:
            while self._wanted():
                acts = next(self._batches, None)
                self._put(_Read(acts, self._ask(), None))
                if acts is None:
                    return
        except BaseException as error:
            self._put(_Read(None, None, error))
        finally:
            # A generator can only be closed by the thread that runs it.
            if isinstance(self._batches, Generator):
                self._batches.close()

    def __next__(self) -> Acts:
        if self._done:
            raise StopIteration
        read = self._queue.get()
        if read.acts is not None:
            self.state = read.state
            return read.acts
        self.close()
        if read.error is not None:
            raise read.error
        raise StopIteration

    def close(self) -> None:
        """End the thread, after the batch that it is making; nothing comes any more."""
        self._done = True
        self._stop.set()
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                break
        self._thread.join()
