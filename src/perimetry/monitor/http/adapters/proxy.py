"""An OpenAI-compatible proxy to one model: chats and completions pass through, and are scored on the way.

In alert mode the text is scored beside the model; status and body of its answer pass untouched, with headers that say what was
found: `x-perimetry-status` is `scored`, `late` (the model answered first; the event is kept all the same) or `error`. In block
mode it is scored first, and what is flagged never reaches the model. Answers of the model are not scored: they were not calibrated.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpx
from fastapi import APIRouter
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from perimetry.monitor.engine import Row
from perimetry.monitor.http.adapters.messages import chat_rows
from perimetry.monitor.http.bodies import JsonRequest
from perimetry.monitor.http.calls import call_of, cancelled, until_gone
from perimetry.monitor.http.judging import Judged, Wanted, plain
from perimetry.monitor.http.security import PROXIED
from perimetry.monitor.http.service import Service
from perimetry.monitor.problems import Problem

__all__ = ["PROXIED", "prompt_rows", "proxy_routes", "to_upstream"]

_TIMEOUT_S: Final = 10.0
_WAIT_S: Final = 0.05
"""How long an answer of the model waits for its score."""
_HOPS: Final = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
    ]
)
_OURS: Final = frozenset({"x-perimetry-key", "cookie", "x-csrf-token", "expect"})


def to_upstream(address: str, silent_s: float, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    """The way to the model: one address, no redirects, no proxies of the environment, no cookies that one client leaves to another."""
    timeout = httpx.Timeout(silent_s, connect=10.0)
    cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    plainly = {"accept-encoding": "identity", "user-agent": "perimetry"}
    return httpx.AsyncClient(
        base_url=address,
        timeout=timeout,
        transport=transport,
        cookies=cookies,
        headers=plainly,
        follow_redirects=False,
        trust_env=False,
    )


def prompt_rows(asked: Any) -> list[Row]:
    """The words of a request: its chat, or its prompts; none where there are none.

    >>> len(prompt_rows({"prompt": ["a", "b"]})), len(prompt_rows({"prompt": [17, 4]})), len(prompt_rows([]))
    (2, 0, 0)
    """
    if not isinstance(asked, dict):
        return []
    messages, prompt = asked.get("messages"), asked.get("prompt")
    if isinstance(messages, list):
        return chat_rows([message for message in messages if isinstance(message, dict)])
    texts = prompt if isinstance(prompt, list) else [prompt]
    return [plain(text) for text in texts if isinstance(text, str) and text.strip()]


def _told(judged: list[Judged]) -> dict[str, str]:
    """Headers of a verdict: of the text that is furthest outside."""
    worst = min(judged, key=lambda one: one.scored.p_value)
    return {
        "x-perimetry-status": "scored",
        "x-perimetry-id": worst.id,
        "x-perimetry-p": f"{worst.scored.p_value:.6g}",
        "x-perimetry-flagged": str(worst.flagged).lower(),
    }


def _blocked(judged: list[Judged]) -> Response:
    told = _told(judged)
    message = f"outside what the model knows: p = {told['x-perimetry-p']}, alpha = {judged[0].alpha:.3g}"
    error = {"message": message, "type": "perimetry_blocked", "param": None, "code": "outside_understanding"}
    return Response(json.dumps({"error": error}), 403, told, media_type="application/json")


class _Passing:
    """Requests on their way through one service."""

    def __init__(self, service: Service, upstream: httpx.AsyncClient) -> None:
        self._service, self._upstream = service, upstream
        self._late: set[asyncio.Task[list[Judged]]] = set()

    def wanted(self, request: Request, rows: list[Row]) -> Wanted:
        """What is asked of the texts."""
        call, alpha = call_of(request), self._service.config.alpha
        return Wanted(rows, alpha, call.began, call.began + _TIMEOUT_S, "proxy", call.name, {})

    def open(self, request: Request, problem: Problem) -> dict[str, str]:
        """Let a text through without a score, and count it; or not. Errors: the problem."""
        if self._service.config.fails == "closed":
            raise problem
        call_of(request).outcome = problem.kind
        self._service.metrics.fail_open.labels("proxy").inc()
        return {"x-perimetry-status": "error"}

    async def ask(self, request: Request, body: bytes) -> httpx.Response:
        """The answer of the model, its body unread. Errors: `Problem` of `upstream`."""
        headers = [(k, v) for k, v in request.headers.items() if k not in _HOPS | _OURS]
        path = request.scope["path"].removeprefix("/v1")
        try:
            return await self._upstream.send(
                self._upstream.build_request("POST", path, content=body, headers=headers), stream=True
            )
        except httpx.HTTPError:
            raise Problem("upstream") from None

    async def block(self, request: Request, body: bytes, rows: list[Row]) -> Response:
        """Score, then ask the model or not."""
        try:
            if not rows:
                raise Problem("nothing-to-score")
            judged = await until_gone(request, self._service.judge.judge(self.wanted(request, rows)))
        except Problem as problem:
            # First whether it may pass: what may not never reaches the model.
            told = self.open(request, problem)
            return self.passed(await self.ask(request, body), told)
        if any(one.flagged for one in judged):
            call_of(request).outcome = "forbidden"
            return _blocked(judged)
        return self.passed(await self.ask(request, body), _told(judged))

    async def alert(self, request: Request, body: bytes, rows: list[Row]) -> Response:
        """Ask the model, and score meanwhile."""
        job = asyncio.create_task(self._service.judge.judge(self.wanted(request, rows))) if rows else None
        try:
            answer = await until_gone(request, self.ask(request, body))
        except BaseException:
            if job is not None:
                await cancelled(job)
            raise
        try:
            return self.passed(answer, await self.verdict(request, job))
        except BaseException:
            await answer.aclose()
            raise

    async def verdict(self, request: Request, job: "asyncio.Task[list[Judged]] | None") -> dict[str, str]:
        """What can be said of the text by now."""
        if job is None:
            return self.open(request, Problem("nothing-to-score"))
        await asyncio.wait({job}, timeout=_WAIT_S)
        if not job.done():
            self._late.add(job)
            job.add_done_callback(self._ended)
            return {"x-perimetry-status": "late"}
        try:
            return _told(job.result())
        except Problem as problem:
            return self.open(request, problem)
        except Exception:
            return self.open(request, Problem("internal"))

    def _ended(self, job: "asyncio.Task[list[Judged]]") -> None:
        self._late.discard(job)
        if not job.cancelled() and job.exception() is not None:
            self._service.metrics.fail_open.labels("proxy").inc()

    @staticmethod
    def passed(answer: httpx.Response, told: dict[str, str]) -> Response:
        """The answer of the model, byte for byte, as it comes."""
        passing = StreamingResponse(_bytes(answer), answer.status_code, background=BackgroundTask(answer.aclose))
        kept = [(k, v) for k, v in answer.headers.raw if k.decode("latin-1").lower() not in _HOPS]
        length = [(k, v) for k, v in answer.headers.raw if k.lower() == b"content-length"]
        passing.raw_headers = [
            *((k.lower(), v) for k, v in [*kept, *length]),
            *((k.encode(), v.encode()) for k, v in told.items()),
        ]
        return passing


async def _bytes(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()


def proxy_routes(service: Service) -> APIRouter:
    """`POST /v1/chat/completions` and `POST /v1/completions`, where there is a model behind; their contract is not ours."""
    router = APIRouter(include_in_schema=False)
    if service.upstream is None:
        return router
    passing = _Passing(service, service.upstream)

    @router.post(PROXIED[0])
    @router.post(PROXIED[1])
    async def proxied(request: Request) -> Response:
        """Pass on, scored."""
        asked = JsonRequest(request.scope, request.receive)
        rows = prompt_rows(await asked.json())
        body = await asked.body()
        go = passing.block if service.config.mode == "block" else passing.alert
        return await go(asked, body, rows)

    return router
