"""Scores: of a text, a chat, several texts; and as they come."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from perimetry.monitor.engine import Row, Some
from perimetry.monitor.http.answers import BODY, EVERYWHERE, SCORING, documented, events, said
from perimetry.monitor.http.bodies import JsonRoute
from perimetry.monitor.http.calls import call_of, cancelled, closed, until_gone
from perimetry.monitor.http.judging import Judged, Wanted, chat, plain
from perimetry.monitor.http.saying import batch_of, capabilities, partial_of, score_of
from perimetry.monitor.http.schemas import Score, ScoreBatch, ScoreRequest, StreamRequest
from perimetry.monitor.http.service import Service
from perimetry.monitor.http.sse import EventStream, frame
from perimetry.monitor.problems import Problem

__all__ = ["score_routes"]

_STREAM: dict[str, Any] = {
    "description": "Frames `meta`, `partial` ..., then `final` (Score) or `error` (Problem).",
    "content": events("meta", "partial", "final", "error"),
}


def _rows(asked: ScoreRequest | StreamRequest) -> list[Row]:
    detail = asked.detail if isinstance(asked, ScoreRequest) else "tokens"
    top = asked.top_concepts if isinstance(asked, ScoreRequest) else 8
    if "messages" in asked.model_fields_set:
        return [chat([(message.role, message.content) for message in asked.messages], detail, top)]
    if isinstance(asked, ScoreRequest) and "inputs" in asked.model_fields_set:
        return [plain(text, detail, top) for text in asked.inputs]
    return [plain(asked.input, detail, top)]


def _wanted(service: Service, request: Request, asked: ScoreRequest | StreamRequest, adapter: str) -> Wanted:
    call = call_of(request)
    own = isinstance(asked, ScoreRequest) and "request_id" in asked.model_fields_set
    return Wanted(
        rows=_rows(asked),
        alpha=asked.alpha if "alpha" in asked.model_fields_set else service.config.alpha,
        began=call.began,
        deadline=call.began + asked.timeout_ms / 1000,
        adapter=adapter,
        request_id=asked.request_id if own and isinstance(asked, ScoreRequest) else call.name,
        metadata=asked.metadata if isinstance(asked, ScoreRequest) else {},
    )


async def _frames(
    service: Service, parts: AsyncIterator[Some | Judged], first: "asyncio.Task[Some | Judged]", instance: str
) -> AsyncIterator[bytes]:
    told = capabilities(service.config, service.engine).model_dump(mode="json", exclude_unset=True)
    yield frame({key: told[key] for key in ("api", "version", "artifact", "mode")}, event="meta")
    part: Some | Judged | None = None
    try:
        while not isinstance(part, Judged):
            part = await first if part is None else await anext(parts)
            if isinstance(part, Judged):
                final = score_of(part, service.engine.artifact)
                yield frame(final.model_dump_json(exclude_unset=True), event="final")
            else:
                yield frame(partial_of(part).model_dump_json(exclude_unset=True, by_alias=True), event="partial")
    except Problem as problem:
        yield frame(problem.document(instance), event="error")


def score_routes(service: Service) -> APIRouter:
    """`POST /v1/score` and `POST /v1/score/stream`."""
    router = APIRouter(route_class=JsonRoute, tags=["score"])
    may = documented(*EVERYWHERE, *BODY, *SCORING, "unknown-model")

    @router.post("/v1/score", responses={200: {"model": Score | ScoreBatch, "description": "Verdicts."}} | may)
    async def score(request: Request, asked: ScoreRequest) -> Response:
        """How far one text, chat or batch of texts lies outside what the model knows."""
        if "model" in asked.model_fields_set:
            service.judge.check_model(asked.model)
        judged = await until_gone(request, service.judge.judge(_wanted(service, request, asked, "score")))
        several = "inputs" in asked.model_fields_set
        made = service.engine.artifact
        return said(batch_of(judged, made) if several else score_of(judged[0], made))

    @router.post("/v1/score/stream", responses={200: _STREAM} | documented(*EVERYWHERE, *BODY, *SCORING))
    async def stream(request: Request, asked: StreamRequest) -> Response:
        """The same of one text, told part by part. Parts carry no p-value: prefixes were not calibrated."""
        parts = service.judge.stream(_wanted(service, request, asked, "stream"), asked.flush_tokens)
        first: asyncio.Task[Any] = asyncio.ensure_future(anext(parts))  # pyright: ignore[reportArgumentType, reportAssignmentType]

        async def leave() -> None:
            await cancelled(first)
            await closed(parts)

        try:
            # What is refused at once is a problem with a status; what fails later is a frame.
            await until_gone(request, asyncio.wait({first}, timeout=service.config.limits.ping_s))
            if first.done() and first.exception() is not None:
                first.result()
        except BaseException:
            await leave()
            raise
        frames = _frames(service, parts, first, call_of(request).name)
        return EventStream(frames, service.config.limits.ping_s, leave)

    return router
