"""The service with its page in a thread of this process, over fakes that a test can steer."""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from tests.monitor.fakes import ARTIFACT, FakeDrift, FakeEngine, MemorySink
from tests.monitor.http.desk import Desk

from perimetry.monitor.engine import ConceptScored, Row, Scored, TokenScored
from perimetry.monitor.http.app import create_app, service_of
from perimetry.monitor.http.http_config import HttpConfig, Limits
from perimetry.monitor.http.server import Listener, listen, settings
from perimetry.monitor.http.sinks import NewEvent
from perimetry.monitor.web.pages import OPEN_PATHS, page_routes

__all__ = ["Stage", "WebDesk", "WordEngine", "alarmed", "event", "staged", "tile"]


def tile(text: str) -> tuple[TokenScored, ...]:
    """Words with the blanks before them; scores from 0 to 8.9 by their letters, 9 for an odd one. All of them are the text."""
    found = [TokenScored(0, 0, "", True, None)]
    for match in re.finditer(r"\s*\S+|\s+\Z", text):
        score = 9.0 if "odd" in match[0] else sum(map(ord, match[0])) % 90 / 10
        found.append(TokenScored(match.start(), match.end(), match[0], False, score))
    return tuple(found)


class WordEngine(FakeEngine):
    """Scores whole words, as a real tokenizer would cut them: nothing of the text is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.concepts: Sequence[ConceptScored] = (
            ConceptScored(7, "odd things", 2.5, 1, 1, ("a «clean» passage", "another «one»")),
            ConceptScored(11, None, 0.5, 2, 2, ()),
        )

    async def score(self, rows: Sequence[Row], deadline: float) -> list[Scored]:
        found = await super().score(rows, deadline)
        return [self._whole(row, one) for row, one in zip(rows, found, strict=True)]

    def _whole(self, row: Row, found: Scored) -> Scored:
        tokens = tile("\n".join(content for _, content in row.messages))
        found = found._replace(n_tokens=len(tokens), scored_tokens=len(tokens) - 1)
        if row.detail == "none":
            return found
        return found._replace(tokens=tokens, concepts=tuple(self.concepts) if row.detail == "concepts" else ())


def event(number: int, *, text: str = "a text", group: str = "short", p_value: float = 0.5, **more: Any) -> NewEvent:
    """A text that came by the API."""
    plain: dict[str, Any] = {
        "uuid": f"{number:08d}-0000-7000-8000-000000000000",
        "request_id": f"r-{number}",
        "created": datetime.now(UTC),
        "adapter": "score",
        "text": text,
        "n_tokens": 3,
        "score": 1.0,
        "p_value": p_value,
        "flagged": p_value <= 0.01,
        "group": group,
        "outcome": "ok",
        "artifact": ARTIFACT,
        "concepts": (),
        "queue_ms": 1.0,
        "forward_ms": 2.0,
        "metadata": {},
    }
    return NewEvent(**(plain | more))


class _Alarmed(FakeDrift):
    """Drift that has everything to show."""

    async def current(self) -> Mapping[str, Any]:
        tests = [
            ("ks", 0.31, 0.0005, 0.66, [0.62, 0.70], True, "auroc"),
            ("mmd", 0.08, 0.001, 0.71, [0.64, 0.78], True, "auroc"),
            ("group_mix", 12.4, 0.4, 0.03, [0.01, 0.06], False, "total_variation"),
        ]
        names = ("name", "statistic", "p_value", "effect", "effect_ci95", "over", "effect_name")
        return {
            **await super().current(),
            "state": "alarm",
            "tests": [dict(zip(names, test, strict=True)) for test in tests],
            "cusum": {"value": 12.3, "threshold": 9.5, "alarm": True},
            "rising_concepts": [{"index": 42, "rate_now": 0.2, "rate_ref": 0.003}],
        }


def alarmed() -> _Alarmed:
    """Drift with an alarm."""
    return _Alarmed()


class WebDesk(Desk):
    """As `Desk`, with the page."""

    def __init__(self, config: HttpConfig | None = None, **limits: Any) -> None:
        self.source: Any = FakeDrift()
        super().__init__(config, **limits)
        self.engine = WordEngine()

    def fresh(self) -> FastAPI:
        return create_app(self.config, self.engine, self.sink, self.source, pages=[page_routes], open_paths=OPEN_PATHS)


class Stage:
    """A running service; started, stopped and started again at the same address."""

    def __init__(self, config: HttpConfig, *, buffer: int = 256) -> None:
        self.config, self.engine, self.source = config, WordEngine(), alarmed()
        self.sink = MemorySink(buffer=buffer)
        self.origin = ""
        self._ended = threading.Event()

    def start(self) -> None:
        """Listen, at the port of the last time."""
        door = listen(self.config)
        port = door.getsockname()[1]
        self.config = self.config.model_copy(update={"port": port})
        self.origin = f"http://127.0.0.1:{port}"
        begun = threading.Event()

        async def serve() -> None:
            app = create_app(
                self.config, self.engine, self.sink, self.source, pages=[page_routes], open_paths=OPEN_PATHS
            )
            self._loop, self._service = asyncio.get_running_loop(), service_of(app)
            self._server = Listener(settings(app, self.config), self._service)
            begun.set()
            await self._server.serve(sockets=[door])

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self._thread.start()
        assert begun.wait(10)

    def stop(self) -> None:
        """End, streams too."""
        self._loop.call_soon_threadsafe(self._service.drain)
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()

    def on_loop(self, work: Callable[[], Any]) -> None:
        """Have something done in the loop of the service, all at once, and wait for it."""
        done = threading.Event()

        def run() -> None:
            work()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(10)

    def put(self, *events: NewEvent) -> None:
        """Events, as if they had been scored; between stop and start too."""

        def keep() -> None:
            for one in events:
                _finish(self.sink.put(one))

        if self._thread.is_alive():
            self.on_loop(keep)
        else:
            keep()


def _finish(work: Any) -> None:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


@contextmanager
def staged(buffer: int = 256, tokens: Path | None = None, **limits: Any) -> Iterator[Stage]:
    """A running service with these limits."""
    made = Limits(**({"rate_per_s": 1e6, "burst": 1_000_000, "drain_s": 0} | limits))
    found = Stage(HttpConfig(port=0, limits=made, tokens=tokens), buffer=buffer)
    found.start()
    try:
        yield found
    finally:
        found.stop()
