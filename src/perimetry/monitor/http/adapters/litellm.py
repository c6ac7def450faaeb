"""The generic guardrail of LiteLLM (a beta API): told what it wants to send, it is told whether it may.

In alert mode the answer is always `NONE`; the verdict is in the events. In block mode it is `BLOCKED` where any of the texts is
rejected at a false discovery rate of alpha. What was not calibrated is not judged: answers of models, and calls without text.
"""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from perimetry.monitor.engine import Row
from perimetry.monitor.http.adapters.messages import chat_rows
from perimetry.monitor.http.answers import BODY, EVERYWHERE, SCORING, documented, said
from perimetry.monitor.http.bodies import JsonRoute
from perimetry.monitor.http.calls import call_of, until_gone
from perimetry.monitor.http.fairness import discoveries
from perimetry.monitor.http.ids import valid_name
from perimetry.monitor.http.judging import Judged, Wanted, plain
from perimetry.monitor.http.schemas import maybe
from perimetry.monitor.http.service import Service
from perimetry.monitor.problems import Problem

__all__ = ["Asked", "Verdict", "litellm_routes", "rows_of"]

ADDRESS: Final = "/beta/litellm_basic_guardrail_api"
_TIMEOUT_S: Final = 10.0


class Asked(BaseModel):
    """What LiteLLM is about to send, or what came back. Members that are not listed are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)

    texts: Annotated[list[str], Field(max_length=256)] | None = None
    input_type: Literal["request", "response"]
    structured_messages: Annotated[list[dict[str, Any]], Field(max_length=1024)] | None = None
    litellm_call_id: str | None = None


class Verdict(BaseModel):
    """What LiteLLM shall do."""

    action: Literal["NONE", "BLOCKED"]
    blocked_reason: str = maybe("")
    """p and alpha, never text."""


def rows_of(asked: Asked) -> list[Row]:
    """The chat, if there is one with words in it; else the texts; else nothing.

    >>> rows_of(Asked(texts=["a", " "], input_type="request"))[0].messages
    (('', 'a'),)
    """
    rows = chat_rows(asked.structured_messages or [])
    if rows:
        return rows
    return [plain(text) for text in asked.texts or [] if text.strip()]


def _reason(judged: list[Judged], rejected: list[int]) -> str:
    least = min(judged[i].scored.p_value for i in rejected)
    count = f"{len(rejected)} of {len(judged)} texts" if len(judged) > 1 else "the text"
    return f"outside what the model knows: {count}, p = {least:.3g}, alpha = {judged[0].alpha:.3g}"


def litellm_routes(service: Service) -> APIRouter:
    """`POST /beta/litellm_basic_guardrail_api`."""
    router = APIRouter(route_class=JsonRoute, tags=["litellm"])
    may = documented(*EVERYWHERE, *BODY, *SCORING, "not-found")

    @router.post(ADDRESS, responses={200: {"model": Verdict}} | may)
    async def guard(request: Request, asked: Asked) -> Response:
        """Whether LiteLLM may go on."""
        if not service.config.litellm:
            raise Problem("not-found")
        call, rows = call_of(request), rows_of(asked)
        if asked.input_type == "response" or not rows:
            call.outcome = "uncalibrated"
            return said(Verdict(action="NONE"))
        given = asked.litellm_call_id
        name = given if given is not None and valid_name(given) else call.name
        alpha = service.config.alpha
        wanted = Wanted(rows, alpha, call.began, call.began + _TIMEOUT_S, "litellm", name, {})
        try:
            judged = await until_gone(request, service.judge.judge(wanted))
        except Problem as problem:
            if service.config.fails == "closed":
                raise
            call.outcome = problem.kind
            service.metrics.fail_open.labels("litellm").inc()
            return said(Verdict(action="NONE"))
        rejected = discoveries([one.scored.p_value for one in judged], alpha)
        if service.config.mode == "alert" or not rejected:
            return said(Verdict(action="NONE"))
        return said(Verdict(action="BLOCKED", blocked_reason=_reason(judged, rejected)))

    return router
