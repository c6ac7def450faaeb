"""What came through: events, also as they come, and drift."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from perimetry.monitor.http.answers import EVERYWHERE, documented, said
from perimetry.monitor.http.answers import events as stream_of
from perimetry.monitor.http.calls import closed
from perimetry.monitor.http.routes.queries import Asked, whole
from perimetry.monitor.http.service import Service
from perimetry.monitor.http.sinks import DriftSource, Gap, Stored
from perimetry.monitor.http.sse import EventStream, frame
from perimetry.monitor.http.views import Drift, Event, EventList
from perimetry.monitor.problems import Problem

__all__ = ["traffic_routes"]

_EVENTS: dict[str, Any] = {
    "description": "A page; with `Accept: text/event-stream` events as they come.",
    "content": stream_of("gap"),
    "model": EventList,
}


async def _frames(found: AsyncIterator[Stored | Gap]) -> AsyncIterator[bytes]:
    async for event in found:
        if isinstance(event, Gap):
            yield frame({"missed": event.missed}, event="gap")
        else:
            yield frame(Event.model_validate(event).model_dump_json(exclude_unset=True), number=event["id"])


def _after(request: Request, asked: Asked) -> int | None:
    given = request.headers.get("last-event-id")
    if given is None:
        return asked.since or None
    try:
        found = whole(given)
    except ValueError:
        raise Problem("invalid", errors=[{"location": "header.last-event-id", "kind": "int_parsing"}]) from None
    assert isinstance(found, int)
    return found


def _watched(service: Service) -> DriftSource:
    """What watches the traffic. Errors: `Problem` of `loading` where nothing does."""
    if service.drift is None:
        raise Problem("loading", "nothing watches the traffic of this service", retry_after_s=60)
    return service.drift


def traffic_routes(service: Service) -> APIRouter:
    """`GET /v1/events`, `GET /v1/drift` and `POST /v1/drift/acknowledge`."""
    router = APIRouter(tags=["traffic"])

    @router.get("/v1/events", responses={200: _EVENTS} | documented(*EVERYWHERE, "invalid", "subscribers"))
    async def events(request: Request, asked: Annotated[Asked, Query()]) -> Response:
        """Texts that were scored, ascending by id."""
        if "text/event-stream" in request.headers.get("accept", "").lower():
            found = await service.sink.tail(_after(request, asked))
            leave = partial(closed, found)
            return EventStream(_frames(found), service.config.limits.ping_s, leave, service.stopping)
        page = await service.sink.page(asked.query())
        listed = [Event.model_validate(event) for event in page.events]
        return said(EventList(events=listed, next=page.next, dropped_total=page.dropped_total))

    @router.get("/v1/drift", responses={200: {"model": Drift}} | documented(*EVERYWHERE, "loading"))
    async def drift() -> Response:
        """How the traffic of late differs from the calibration."""
        return said(Drift.model_validate(await _watched(service).current()))

    @router.post("/v1/drift/acknowledge", responses={200: {"model": Drift}} | documented(*EVERYWHERE, "loading"))
    async def acknowledge() -> Response:
        """Say that an alarm was seen: the cumulative sum begins anew. Takes no body; of several replicas the one that leads heeds it soon."""
        await _watched(service).acknowledge()
        return said(Drift.model_validate(await _watched(service).current()))

    return router
