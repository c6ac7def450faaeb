"""One life of the worker, seen from the process that listens: started, asked, heard, ended."""

import asyncio
import contextlib
import socket
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

from perimetry.monitor.config import MonitorConfig
from perimetry.monitor.frames import Decoder, Frame, encode
from perimetry.monitor.rows import Ticket
from perimetry.monitor.wire import batch_frame

__all__ = ["Worker"]

_PIECE: Final = 2**18
_PATIENCE_S: Final = 2.0


@final
class Worker:
    """A process that holds a model, and the socket to it. It dies with the process that listens."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder()
        self._frames: deque[Frame] = deque()
        self.killed = ""
        """Why it was killed; empty where it was not, or not by us."""

    @classmethod
    async def spawn(cls) -> "Worker":
        """Start a fresh interpreter; nothing but one end of a socket is handed to it. Errors: `OSError`."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "perimetry.monitor.child", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def open(self, meter: Path, config: MonitorConfig) -> None:
        """Tell it what to load; it answers `ready` or `refused`."""
        header = {"kind": "open", "meter": str(meter.absolute()), "config": config.model_dump(mode="json")}
        self._write(encode(header))

    def send(self, number: int, tickets: Sequence[Ticket]) -> None:
        """As `Wire.send`."""
        asked = [ticket.encoded.asked(ticket.row) for ticket in tickets if ticket.encoded is not None]
        self._write(batch_frame(number, asked))

    def abort(self, number: int) -> None:
        """As `Wire.abort`."""
        self._write(encode({"kind": "abort", "batch": number}))

    def ask_sentinel(self) -> None:
        """Have the sentinel run once more; it answers `sentinel`."""
        self._write(encode({"kind": "sentinel"}))

    def kill(self, why: str) -> None:
        """As `Wire.kill`. The first reason counts."""
        self.killed = self.killed or why
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _write(self, data: bytes) -> None:
        # What is in flight is bounded by the two batches that a worker holds, so that nothing piles up here.
        if not self._writer.is_closing():
            self._writer.write(data)

    async def next(self) -> Frame | None:
        """What it says next; None where it says nothing more. Errors: `BadFrame`. Being cancelled loses nothing."""
        while not self._frames:
            try:
                data = await self._reader.read(_PIECE)
            except OSError:
                data = b""
            if not data:
                return None
            self._frames.extend(self._decoder.feed(data))
        return self._frames.popleft()

    async def end(self, *, gently: bool = False) -> str:
        """End it, and say how it ended: why it was killed, or its exit code. `gently`: let it go by itself for two seconds."""
        if gently:
            self._write(encode({"kind": "stop"}))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _PATIENCE_S)
        elif not self.killed:
            # A worker that closed its socket is about to exit: its own code says more than our signal would.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), 0.2)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        code = await self._process.wait()
        self._writer.close()
        return self.killed or f"exit {code}"
