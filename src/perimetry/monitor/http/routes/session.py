"""A browser shows its token once and gets a cookie, so that no script ever holds the token."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from perimetry.monitor.http.calls import call_of
from perimetry.monitor.http.forms import read_form
from perimetry.monitor.http.security import COOKIE, session_cookie
from perimetry.monitor.http.service import Service
from perimetry.monitor.problems import Problem

__all__ = ["OPENING", "session_routes"]

OPENING = "/session"
"""Where a token is exchanged; needs no token of its own."""


def session_routes(service: Service) -> APIRouter:
    """`POST /session` (field `token`) and `POST /session/end`; both lead back to the page, a wrong token to the way in."""
    router = APIRouter(include_in_schema=False)

    @router.post(OPENING)
    async def begin(request: Request) -> Response:
        """A cookie for a token."""
        token = (await read_form(request)).get("token", "")
        key = None if service.tokens is None else service.tokens.find(token.strip())
        if key is None and "text/html" in request.headers.get("accept", ""):
            call_of(request).outcome = "unauthorized"
            return RedirectResponse("/login?again=1", 303)
        if key is None:
            raise Problem("unauthorized")
        cookie, _ = service.sessions.open(key)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE,
            cookie,
            max_age=int(service.sessions.seconds),
            httponly=True,
            samesite="strict",
            secure=service.config.https,
        )
        return answer

    @router.post("/session/end")
    async def end(request: Request) -> Response:
        """No cookie any more."""
        cookie = session_cookie(request.scope)
        if cookie is not None:
            service.sessions.close(cookie)
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=service.config.https)
        return answer

    return router
