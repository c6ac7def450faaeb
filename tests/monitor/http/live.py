"""A service in another process, and a client that is as rude as it likes."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[3]


class Live:
    """A running service."""

    def __init__(self, process: "subprocess.Popen[bytes]", address: str) -> None:
        self.process, self.address = process, address
        host, _, port = address.removeprefix("http://").rpartition(":")
        self.where = (host, int(port))
        self.http = httpx.Client(base_url=address, timeout=20)

    def connect(self, timeout: float = 20.0) -> socket.socket:
        return socket.create_connection(self.where, timeout)

    def send(self, *packets: bytes) -> bytes:
        """What is answered to these packets, until the service closes the connection. A reset ends what can be sent."""
        with self.connect() as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for packet in packets:
                    client.sendall(packet)
            except OSError:
                pass
            return drained(client)

    def metric(self, name: str) -> float:
        text = self.http.get("/metrics").text
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    def rss(self) -> int:
        """Bytes of memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) * 1024

    def idle(self, within_s: float = 1.0) -> bool:
        """Whether within this time no request is at work."""
        return within(within_s, lambda: self.metric("perimetry_inflight") == 0)


def within(seconds: float, true: Callable[[], bool]) -> bool:
    """Whether something becomes true within this time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return true()


def drained(client: socket.socket) -> bytes:
    """Everything that comes until the other side closes."""
    found = b""
    try:
        while piece := client.recv(65536):
            found += piece
    except ConnectionError:
        pass
    return found


def status_of(answer: bytes) -> int:
    """The status of an answer as bytes."""
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert found is not None, answer[:200]
    return int(found[1])


@contextmanager
def live(**asked: Any) -> Iterator[Live]:
    """A service with these limits."""
    limits = {"rate_per_s": 1e6, "burst": 1_000_000} | asked.pop("limits", {})
    command = [sys.executable, "-m", "tests.monitor.http.stand", json.dumps({"limits": limits} | asked)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().decode().strip()
        assert address, "the service did not start"
        found = Live(process, address)
        with found.http:
            assert within(10, lambda: found.http.get("/healthz").status_code == 200)
            yield found
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
