"""The routes of the page: three views, the way in, and the files that they need.

A prompt comes in by POST only, so that it is in no address, and is scored as a request of the adapter `page` whose events are marked
as synthetic: what people try out is no traffic.
"""

import json
from datetime import UTC, datetime
from typing import Any, Final, final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from perimetry import __version__
from perimetry.monitor.http.calls import call_of, until_gone
from perimetry.monitor.http.forms import read_form
from perimetry.monitor.http.judging import Judged, Wanted, plain
from perimetry.monitor.http.routes.status import what_is_wrong
from perimetry.monitor.http.service import Service
from perimetry.monitor.http.tokens import Key, Session
from perimetry.monitor.problems import Problem
from perimetry.monitor.web.banners import Banner, of_problem, of_service
from perimetry.monitor.web.card_view import card_view
from perimetry.monitor.web.examples import EXAMPLES
from perimetry.monitor.web.reading_view import reading_view
from perimetry.monitor.web.rendering import Renderer
from perimetry.monitor.web.traffic_view import current_drift, traffic_view

__all__ = ["OPEN_PATHS", "page_routes"]

OPEN_PATHS: Final = ("/", "/traffic", "/card", "/login", "/static/")
"""Addresses that say themselves what they show to whom."""

_CONCEPTS: Final = 8
_SECONDS: Final = 10.0
_RATES: Final = (0.001, 0.005, 0.01, 0.05, 0.1)


def _key(request: Request) -> Key | None:
    found: Key | None = request.scope["state"]["key"]
    return found


def _shown_to(request: Request, scope: str) -> Response | None:
    """None for those who may; for those who have shown no token the way in. Errors: `Problem` of `forbidden`, for a form of theirs of `unauthorized`."""
    key = _key(request)
    if key is None and request.method == "POST":
        raise Problem("unauthorized")
    if key is None:
        return RedirectResponse("/login", 303)
    if scope not in key.scopes:
        raise Problem("forbidden", f"the scope {scope} is wanted")
    return None


def _rate(fields: dict[str, str], default: float) -> float:
    try:
        return float(fields.get("alpha") or default)
    except ValueError:
        return default


def _prompt(fields: dict[str, str]) -> str:
    """The prompt of a form, whose line ends browsers write in two characters; or the example whose button was pressed."""
    number = fields.get("example", "")
    if number.isascii() and number.isdigit() and int(number) < len(EXAMPLES):
        return EXAMPLES[int(number)].text
    return fields.get("text", "").replace("\r\n", "\n")


@final
class _Pages:
    """The views of one service."""

    def __init__(self, service: Service) -> None:
        self.service, self.renderer = service, Renderer()

    def _base(self, request: Request, here: str) -> dict[str, Any]:
        session: Session | None = request.scope["state"]["session"]
        wrong = [f"{name}: {state}" for name, state in what_is_wrong(self.service).items() if state != "ok"]
        return {
            "here": here,
            "csrf": "" if session is None else session.csrf,
            "wrong": wrong,
            "version": __version__,
            "banners": [],
        }

    async def _about(self) -> list[Banner]:
        """What is to be said of the service beside a reading."""
        engine, drift = self.service.engine, await current_drift(self.service.drift)
        return of_service(what_is_wrong(self.service), engine.card, drift, datetime.now(UTC))

    async def prompt(self, request: Request) -> Response:
        """The view as it is first seen."""
        banners = await self._about()
        return self._prompt_page(request, "", self.service.config.alpha, None, banners, 200)

    def _prompt_page(
        self, request: Request, text: str, alpha: float, view: dict[str, Any] | None, banners: list[Banner], status: int
    ) -> Response:
        shown = [banner._asdict() for banner in banners] if view is None else view["banners"]
        least = min((group.alpha_min for group in self.service.engine.groups), default=0.0)
        rates = sorted({rate for rate in (*_RATES, self.service.config.alpha) if rate >= least} | {alpha})
        more = {"text": text, "alpha": alpha, "rates": rates, "examples": EXAMPLES, "view": view, "banners": shown}
        return self.renderer.page("prompt", self._base(request, "/") | more, status)

    async def score(self, request: Request) -> Response:
        """A prompt, and what was found: as a page, or for the script as JSON."""
        call, service = call_of(request), self.service
        fields = await read_form(request)
        text, alpha = _prompt(fields), _rate(fields, service.config.alpha)
        plain_wanted = "application/json" in request.headers.get("accept", "")
        try:
            if not text:
                raise Problem("invalid", "there is no prompt; type one, or pick an example")
            if not 0 < alpha <= 0.5:
                raise Problem("invalid", "the false-alarm rate must lie above 0 and be at most 0.5")
            judged = await until_gone(request, self._judge(text, alpha, call.began, call.name))
        except Problem as problem:
            if plain_wanted:
                raise
            call.outcome = problem.kind
            answer = self._prompt_page(request, text, alpha, None, [of_problem(problem)], problem.status)
            if problem.retry_after_s is not None:
                answer.headers["retry-after"] = str(problem.retry_after_s)
            return answer
        view = reading_view(
            judged, service.engine.groups, service.engine.card, service.config.alpha, await self._about()
        )
        if plain_wanted:
            return _Json(view)
        return self._prompt_page(request, text, alpha, view, [], 200)

    async def _judge(self, text: str, alpha: float, began: float, name: str) -> Judged:
        row = plain(text, "concepts", _CONCEPTS)
        wanted = Wanted([row], alpha, began, began + _SECONDS, "page", name, {"synthetic": "page"})
        return (await self.service.judge.judge(wanted))[0]

    async def traffic(self, request: Request) -> Response:
        """What came through."""
        service, now = self.service, datetime.now(UTC)
        view = await traffic_view(service.sink, service.drift, service.config.alpha, now)
        return self.renderer.page("traffic", self._base(request, "/traffic") | {"view": view})

    async def acknowledge(self, request: Request) -> Response:
        """Somebody has seen the alarm. Errors: `Problem` of `loading` where nothing watches the traffic."""
        await read_form(request)
        if self.service.drift is None:
            raise Problem("loading", "nothing watches the traffic of this service", retry_after_s=60)
        await self.service.drift.acknowledge()
        return RedirectResponse("/traffic", 303)

    def card(self, request: Request) -> Response:
        """What scores."""
        view = card_view(self.service.config, self.service.engine)
        return self.renderer.page("card", self._base(request, "/card") | {"view": view})

    def login(self, request: Request) -> Response:
        """The way in."""
        if self.service.tokens is None or _key(request) is not None:
            return RedirectResponse("/", 303)
        return self.renderer.page("login", self._base(request, "/login") | {"again": "again" in request.query_params})


class _Json(Response):
    """Plain values as JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def page_routes(service: Service) -> APIRouter:
    """`/` (Prompt; a form is posted to it), `/traffic`, `/card`, `/login`, `/static/NAME`; give `create_app` `OPEN_PATHS` with it."""
    router = APIRouter(include_in_schema=False)
    pages = _Pages(service)

    @router.get("/")
    async def prompt(request: Request) -> Response:
        """The prompt view."""
        return _shown_to(request, "score") or await pages.prompt(request)

    @router.post("/")
    async def score(request: Request) -> Response:
        """A verdict."""
        return _shown_to(request, "score") or await pages.score(request)

    @router.get("/traffic")
    async def traffic(request: Request) -> Response:
        """The traffic view."""
        return _shown_to(request, "read") or await pages.traffic(request)

    @router.post("/traffic")
    async def acknowledge(request: Request) -> Response:
        """The alarm was seen."""
        return _shown_to(request, "read") or await pages.acknowledge(request)

    @router.get("/card")
    async def card(request: Request) -> Response:
        """The model card."""
        return _shown_to(request, "read") or pages.card(request)

    @router.get("/login")
    async def login(request: Request) -> Response:
        """The way in."""
        return pages.login(request)

    @router.get("/static/{name}")
    async def asset(name: str) -> Response:
        """A file."""
        return pages.renderer.asset(name)

    return router
