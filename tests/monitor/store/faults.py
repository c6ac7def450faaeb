"""A proxy on loopback that fails in the ways in which networks and servers fail."""

import contextlib
import socket
import struct
import threading
from pathlib import Path
from typing import Literal

Mode = Literal["through", "refuse", "swallow", "reset", "slow", "garbage", "half-open"]

DELAY_S = 2.5


class FaultProxy:
    """Takes connections to a port of 127.0.0.1 and passes them on to a Unix socket, as long as its mode is `through`."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._mode: Mode = "through"
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]

    @staticmethod
    def _listen(port: int) -> socket.socket:
        found = socket.socket()
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(("127.0.0.1", port))
        found.listen()
        return found

    def __enter__(self) -> "FaultProxy":
        self._start(self._accept, self._listener)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._shut(self._listener)
        self._cut()
        for thread in self._threads:
            thread.join(5)

    def turn(self, mode: Mode) -> None:
        """Fail in this way from now on; connections that are there fail too, or are cut when all is well again."""
        before, self._mode = self._mode, mode
        if mode == "refuse":
            self._shut(self._listener)
        elif before == "refuse":
            self._listener = self._listen(self.port)
            self._start(self._accept, self._listener)
        if mode in ("refuse", "reset", "through"):
            self._cut()

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # pyright: ignore[reportArgumentType]
        self._threads.append(thread)
        thread.start()

    @staticmethod
    def _shut(one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()

    def _cut(self) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for one in sockets:
            with contextlib.suppress(OSError):
                if self._mode == "reset" and one.family == socket.AF_INET:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while not self._ended.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if self._mode == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._target))
            with self._lock:
                self._sockets |= {client, server}
            self._start(self._pump, client, server, True)
            self._start(self._pump, server, client, False)

    def _pump(self, source: socket.socket, sink: socket.socket, forth: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._mode == "slow":
                    self._ended.wait(DELAY_S)
                elif self._mode == "garbage" and not forth:
                    data = b"\xff\x00garbage" * 8
                elif self._mode == "swallow" or (self._mode == "half-open" and not forth):
                    continue
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        source.close()
