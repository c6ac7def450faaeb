"""How uvicorn is set, and what the service says before it listens."""

import socket

import pytest
from tests.monitor.http.desk import Desk

from perimetry.errors import ConfigError
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.server import listen, settings


def test_limits_reach_uvicorn_and_addresses_reach_no_log() -> None:
    desk = Desk(head_s=3.0, stalled_s=2.0, header_bytes=4096, connections=7, keep_alive_s=2, drain_s=9)
    made = settings(desk.app, desk.config)
    assert (made.limit_concurrency, made.timeout_keep_alive, made.timeout_graceful_shutdown) == (7, 2, 9)
    assert made.h11_max_incomplete_event_size == 4096
    assert (made.access_log, made.proxy_headers, made.server_header, made.workers, made.ws) == (
        False,
        False,
        False,
        1,
        "none",
    )
    assert (made.http.head_s, made.http.stalled_s) == (3.0, 2.0)  # type: ignore[union-attr]


def test_a_port_that_is_taken_says_so() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: .*; choose another port"):
            listen(HttpConfig(port=port))


def test_answers_are_not_held_back_by_nagle() -> None:
    """asyncio sets TCP_NODELAY on a connection whose socket says that it is TCP; one that was made without saying so does not."""
    with listen(HttpConfig(port=0)) as door:
        assert door.proto == socket.IPPROTO_TCP
