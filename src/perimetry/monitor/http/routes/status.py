"""What the service says of itself: probes, what it can do, metrics, its own description."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from perimetry.monitor.http.answers import EVERYWHERE, documented, said
from perimetry.monitor.http.metrics import CONTENT_TYPE
from perimetry.monitor.http.openapi import as_bytes
from perimetry.monitor.http.saying import capabilities
from perimetry.monitor.http.service import Service
from perimetry.monitor.http.views import Alive, Capabilities, Ready
from perimetry.monitor.problems import Problem

__all__ = ["PROBES", "status_routes", "what_is_wrong"]

PROBES = frozenset({"/healthz", "/health", "/readyz"})
"""Addresses that need no token and no room."""


def what_is_wrong(service: Service) -> dict[str, str]:
    """Every check with "ok" or what is wrong."""
    serving = {"serving": "draining" if service.room.draining else "ok"}
    return {**service.engine.checks(), **service.sink.checks(), **serving}


def status_routes(service: Service) -> APIRouter:
    """`/healthz`, `/health`, `/readyz`, `/v1/capabilities`, `/metrics`."""
    router = APIRouter(tags=["status"])
    probing = documented("misdirected", "forbidden", "headers", "internal")

    @router.get("/healthz", responses={200: {"model": Alive}} | probing)
    @router.get("/health", responses={200: {"model": Alive}} | probing)
    async def alive() -> Response:
        """The event loop answers; nothing more."""
        return said(Alive(status="ok"))

    @router.get(
        "/readyz",
        responses={200: {"model": Ready}}
        | documented("misdirected", "forbidden", "headers", "internal", "loading", "draining"),
    )
    async def ready() -> Response:
        """Everything is well that a score rests on."""
        checks = what_is_wrong(service)
        if all(state == "ok" for state in checks.values()):
            return said(Ready(status="ready", checks=checks))
        raise Problem("draining" if service.room.draining else "loading", "see checks", retry_after_s=5, checks=checks)

    @router.get("/v1/capabilities", responses={200: {"model": Capabilities}} | documented(*EVERYWHERE, "loading"))
    async def able() -> Response:
        """What this service can do, and what made its scores."""
        return said(capabilities(service.config, service.engine))

    text = {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}

    @router.get("/metrics", responses={200: text} | documented(*EVERYWHERE))
    async def metrics() -> Response:
        """Everything that Prometheus may read."""
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})

    @router.get("/openapi.json", include_in_schema=False)
    async def described(request: Request) -> Response:
        """This description."""
        return Response(as_bytes(request.app.openapi()), media_type="application/json")

    return router
