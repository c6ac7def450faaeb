"""The service over fakes as a process of its own: `python -m tests.monitor.http.stand '{"limits": {...}, "config": {...}, "delay_s": 0.1}'`."""

import asyncio
import json
import logging
import os
import socket
import sys

from tests.monitor.fakes import FakeDrift, FakeEngine, MemorySink

from perimetry.monitor.http import server
from perimetry.monitor.http.app import create_app
from perimetry.monitor.http.http_config import HttpConfig


def small_buffers(config: HttpConfig) -> socket.socket:
    """A socket whose connections hold little that was not read: a client that does not read is seen at once."""
    found = LISTEN(config)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return found


LISTEN = server.listen


def say(address: str) -> None:
    os.write(1, f"{address}\n".encode())


def main() -> int:
    """Serve until told to stop; says its address on standard output."""
    asked = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    engine, delay_s = FakeEngine(), float(asked.get("delay_s", 0.0))

    async def work() -> None:
        await asyncio.sleep(delay_s)

    engine.before = work if delay_s else None
    config = HttpConfig.model_validate({"port": 0, "limits": asked.get("limits", {})} | asked.get("config", {}))
    server.listen = small_buffers if asked.get("small_buffers") else LISTEN
    well = asyncio.run(server.serve(lambda: create_app(config, engine, MemorySink(), FakeDrift()), config, say))
    return 0 if well and engine.stopped else 1


if __name__ == "__main__":
    sys.exit(main())
