"""The service in this process, asked without a socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI
from tests.monitor.fakes import FakeDrift, FakeEngine, MemorySink

from perimetry.monitor.http.app import create_app
from perimetry.monitor.http.http_config import HttpConfig, Limits

T = TypeVar("T")


class Desk:
    """An application over fakes."""

    def __init__(self, config: HttpConfig | None = None, **limits: Any) -> None:
        made = {"rate_per_s": 1e6, "burst": 1_000_000} | limits
        base = config or HttpConfig()
        self.config = base.model_copy(update={"limits": Limits(**made)})
        self.engine, self.sink, self.drift = FakeEngine(), MemorySink(), FakeDrift()
        self.app = self.fresh()

    def fresh(self) -> FastAPI:
        """A new application over the same fakes: one that has stopped takes no more requests."""
        return create_app(self.config, self.engine, self.sink, self.drift)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        self.app = self.fresh()
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        address = "http://127.0.0.1:8765"
        async with (
            self.app.router.lifespan_context(self.app),
            httpx.AsyncClient(transport=transport, base_url=address) as client,
        ):
            yield client

    def ask(self, use: Callable[[httpx.AsyncClient], Awaitable[T]]) -> T:
        """Run one conversation."""

        async def talk() -> T:
            async with self.client() as client:
                return await use(client)

        return asyncio.run(talk())

    def post(self, path: str, **more: Any) -> httpx.Response:
        """One request."""
        return self.ask(lambda client: client.post(path, **more))

    def get(self, path: str, **more: Any) -> httpx.Response:
        """One request."""
        return self.ask(lambda client: client.get(path, **more))


def assert_problem(answer: httpx.Response, kind: str, status: int) -> dict[str, Any]:
    """The answer is this refusal, in full."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["type"] == f"urn:perimetry:problem:{kind}"
    assert found["status"] == status
    assert found["instance"] == answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    return found
