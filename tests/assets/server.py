"""A web server on 127.0.0.1 that misbehaves on request."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """Serves `files`; every request lands in `requests` as (path, Range header)."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, str]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.headers: list[dict[str, str]] = []
        self.ignore_range = False
        self.cut_after: list[int] = []
        """Byte counts of this request and the next ones, after which the connection drops."""
        self.stall_after: int | None = None
        """Send so many bytes, then wait until `resume` is set."""
        self.resume = threading.Event()
        self.answers: list[int] = []
        """Status codes to give before serving anything."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                outer.serve(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def add(self, path: str, data: bytes, content_type: str = "application/octet-stream") -> str:
        self.files[path] = (data, content_type)
        return self.url + path

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.requests.append((request.path, wanted))
        self.headers.append(dict(request.headers.items()))
        if self.answers:
            status = self.answers.pop(0)
            request.send_response(status)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if request.path not in self.files:
            request.send_response(404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        data, content_type = self.files[request.path]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and not self.ignore_range else 0
        if start >= len(data) and start:
            request.send_response(416)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.send_header("Content-Type", content_type)
        request.send_header("Content-Length", str(len(data) - start))
        request.end_headers()
        body = data[start:]
        cut = self.cut_after.pop(0) if self.cut_after else None
        try:
            if cut is not None:
                request.wfile.write(body[:cut])
                request.wfile.flush()
                request.close_connection = True
            elif self.stall_after is not None:
                request.wfile.write(body[: self.stall_after])
                request.wfile.flush()
                self.resume.wait(60)
                request.close_connection = True
            else:
                request.wfile.write(body)
        except OSError:
            pass

    def close(self) -> None:
        self.resume.set()
        self.http.shutdown()
        self.http.server_close()
