import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.monitor.http.live import live
from tests.worlds import run_main


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """The address of something that answers so, and the paths that it was asked for."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/readyz"
        finally:
            server.shutdown()
            thread.join()


def test_a_ready_service_is_0() -> None:
    with answering(200, b'{"status": "ready", "checks": {"worker": "ok"}}') as url:
        done = run_main("healthcheck", "--url", url)
        assert (done.code, done.out) == (0, "ready\n")
        assert run_main("healthcheck", "--url", url, "--json").json() == {
            **{"ready": True, "status": 200, "failing": {}, "why": ""}
        }


def test_what_fails_is_named() -> None:
    body = {"status": 503, "checks": {"worker": "ok", "sentinel": "not asked yet", "store": "disk full"}}
    with answering(503, json.dumps(body).encode()) as url:
        done = run_main("healthcheck", "--url", url)
        assert (done.code, done.out) == (1, "not ready: sentinel: not asked yet; store: disk full\n")
        assert run_main("healthcheck", "--url", url, "--json").json()["failing"] == {
            **{"sentinel": "not asked yet", "store": "disk full"}
        }


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, b"<html>", "status 503"),
        (503, b"[1]", "status 503"),
        (503, b'{"checks": 3}', "status 503"),
        (503, b"[" * 60_000, "status 503"),
        (301, b"", "status 301"),
        (204, b"", "status 204"),
        (503, b'{"checks": {"a\\u001b[2J": "b\\nc"}}', "a\N{REPLACEMENT CHARACTER}[2J: b\N{REPLACEMENT CHARACTER}c"),
    ],
)
def test_any_other_answer_is_1(status: int, body: bytes, said: str) -> None:
    with answering(status, body) as url:
        done = run_main("healthcheck", "--url", url)
    assert (done.code, done.out) == (1, f"not ready: {said}\n")


def test_nobody_there_is_1_whatever_proxy_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200, b"{}") as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        done = run_main("healthcheck", "--url", "http://127.0.0.1:9/readyz", "--json")
    assert done.code == 1
    assert done.json()["why"] == "no answer: ConnectionRefusedError"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "127.0.0.1:8765", "http://", "http://[", "http://h:99999/"])
def test_no_address_is_an_error(url: str) -> None:
    kind, message = run_main("healthcheck", "--url", url, "--json").error()
    assert kind == "UsageError"
    assert "http://127.0.0.1:8765/readyz" in message


def test_it_asks_the_service_by_a_name_that_is_allowed() -> None:
    with live() as service:
        for name in ("127.0.0.1", "localhost"):
            url = service.address.replace("127.0.0.1", name) + "/readyz"
            assert run_main("healthcheck", "--url", url).out == "ready\n"
