"""A service in a process of its own, and the cheapest client there is, so that what is measured is the service."""

import asyncio
import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Client", "Service", "serving"]

_PATIENCE_S = 900.0
_UNLIMITED = {"rate_per_s": 1e6, "burst": 1_000_000}


class Service:
    """A service that scores."""

    def __init__(self, host: str, port: int, pid: int) -> None:
        self.host, self.port, self.pid = host, port, pid

    def resident_bytes(self) -> int:
        """Memory of the process that listens, without the one that has the model."""
        fields = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _ready(process: "subprocess.Popen[str]") -> str:
    """The address, once the model is loaded. Errors: `RuntimeError` with what it said instead."""
    assert process.stdout is not None
    address, end = "", time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        if not select.select([process.stdout], [], [], 1.0)[0]:
            continue
        line = process.stdout.readline()
        if not line:
            break
        said = json.loads(line)
        address = said.get("address", address)
        if said["event"] == "ready":
            return address
    raise RuntimeError("the service did not get ready; what it said is above")


@contextlib.contextmanager
def serving(
    meter: Path, folder: Path, *, threads: int, device: str = "auto", model: str | None = None
) -> Iterator[Service]:
    """`perimetry serve METER` with its defaults, but for limits of rate, for as long as this lasts."""
    config = folder / "serve.toml"
    limits = "\n".join(f"{key} = {value}" for key, value in _UNLIMITED.items())
    config.write_text(f"[serve.http]\nport = 0\n[serve.http.limits]\n{limits}\n", encoding="utf-8")
    flags = [
        "--config",
        config,
        "--store",
        folder / "events",
        "--device",
        device,
        "--threads",
        threads,
        "--json",
        "--quiet",
    ]
    if model is not None:
        flags += ["--model", model]
    command = [sys.executable, "-m", "perimetry", "serve", meter, *flags]
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    try:
        host, _, port = _ready(process).removeprefix("http://").rpartition(":")
        yield Service(host, int(port), process.pid)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Client:
    """Connections that are kept open."""

    def __init__(self, service: Service, connections: int) -> None:
        """Within `opened`, at most as many requests at once as there are connections."""
        self._service, self._connections = service, connections
        self._streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __aenter__(self) -> "Client":
        made = (asyncio.open_connection(self._service.host, self._service.port) for _ in range(self._connections))
        self._streams = list(await asyncio.gather(*made))
        return self

    async def __aexit__(self, *_: object) -> None:
        for _reader, writer in self._streams:
            writer.close()

    async def score(self, bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers to these bodies, in order; each connection asks its next as soon as it has its answer."""
        found: list[dict[str, Any]] = [{}] * len(bodies)
        left = iter(enumerate(bodies))

        async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for at, body in left:
                found[at] = await _ask(reader, writer, f"{self._service.host}:{self._service.port}", body)

        await asyncio.gather(*(work(*streams) for streams in self._streams))
        return found


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, body: dict[str, Any]
) -> dict[str, Any]:
    data = json.dumps(body).encode()
    head = f"POST /v1/score HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    answer = await reader.readuntil(b"\r\n\r\n")
    lines = answer.decode("latin-1").split("\r\n")
    length = next(int(line.partition(":")[2]) for line in lines if line.lower().startswith("content-length:"))
    found: dict[str, Any] = json.loads(await reader.readexactly(length))
    if lines[0].split()[1] != "200":
        raise RuntimeError(f"{lines[0]}: {found.get('type')} {found.get('detail', '')}")
    return found
