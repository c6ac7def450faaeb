"""The detector API of the FMS guardrails orchestrator and of TrustyAI.

A flagged text is answered with its hottest runs of tokens. Their score is that of the whole text, 1 - p: a run has no p-value.
There is no alert or block here: the orchestrator decides, and a fault is always an error, never an empty list.
"""

import json
import statistics
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from perimetry.monitor.engine import Row, TokenScored
from perimetry.monitor.http.adapters.messages import chat_rows
from perimetry.monitor.http.answers import BODY, EVERYWHERE, SCORING, documented
from perimetry.monitor.http.bodies import JsonRoute
from perimetry.monitor.http.calls import call_of, until_gone
from perimetry.monitor.http.judging import Judged, Wanted, plain, text_of
from perimetry.monitor.http.schemas import maybe
from perimetry.monitor.http.service import Service
from perimetry.monitor.problems import Problem

__all__ = ["DETECTION", "Run", "detector_routes", "hottest_runs"]

DETECTION: Final = "outside_understanding"
KIND: Final = "perimetry"
_TIMEOUT_S: Final = 10.0


class _Asking(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class Params(_Asking):
    """What the orchestrator passes on for this detector."""

    alpha: Annotated[float, Field(gt=0, le=0.5)] = maybe(0.01)
    """False-alarm rate; without it that of the configuration."""


class Contents(_Asking):
    """Texts, each judged by itself."""

    contents: Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1, max_length=32)]
    detector_params: Params | None = maybe(None)


class Message(_Asking):
    """A message of a chat as OpenAI's API has it; its words count, not its images and calls of tools."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = maybe(None)


class Chat(_Asking):
    """A chat, judged as a whole."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)]
    detector_params: Params | None = maybe(None)


class Detection(BaseModel):
    """A chat that is flagged."""

    detection: Literal["outside_understanding"]
    detection_type: Literal["perimetry"]
    score: float
    metadata: dict[str, Any]


class Span(Detection):
    """A run of hot tokens of a text that is flagged."""

    start: int
    end: int
    text: str


class Run(NamedTuple):
    """A run of neighbouring hot tokens."""

    start: int
    """Where it begins, in code points."""
    end: int
    """Where it ends."""
    heat: float
    """Highest score of a token in it."""


def hottest_runs(tokens: Sequence[TokenScored], most: int = 3) -> list[Run]:
    """The hottest runs of neighbouring tokens that score above half way from the mean to the highest, hottest first.

    >>> def t(i, score): return TokenScored(i, i + 1, "x", False, score)
    >>> hottest_runs([t(0, 0.0), t(1, 9.0), t(2, 8.0), t(3, 0.0), t(4, 7.0)])
    [Run(start=1, end=3, heat=9.0), Run(start=4, end=5, heat=7.0)]
    """
    scores = [t.score for t in tokens if t.score is not None]
    if not scores:
        return []
    cut = (statistics.fmean(scores) + max(scores)) / 2
    runs: list[Run] = []
    joined = False
    for token in tokens:
        if token.score is None or token.score < cut:
            joined = False
            continue
        if joined:
            last = runs.pop()
            runs.append(Run(last.start, max(last.end, token.end), max(last.heat, token.score)))
        else:
            runs.append(Run(token.start, token.end, token.score))
        joined = True
    return sorted(runs, key=lambda run: -run.heat)[:most]


def _about(judged: Judged, artifact: str) -> dict[str, Any]:
    return {"p_value": judged.scored.p_value, "group": judged.scored.group, "artifact": artifact}


def _spans(judged: Judged, artifact: str) -> list[Span]:
    if not judged.flagged:
        return []
    text = text_of(judged.row)
    runs = hottest_runs(judged.scored.tokens) or [Run(0, len(text), judged.scored.score)]
    return [
        Span(
            start=run.start,
            end=run.end,
            text=text[run.start : run.end],
            detection=DETECTION,
            detection_type=KIND,
            score=1 - judged.scored.p_value,
            metadata=_about(judged, artifact) | {"heat": run.heat},
        )
        for run in runs
    ]


async def _judged(service: Service, request: Request, rows: Sequence[Row], params: Params | None) -> list[Judged]:
    call, given = call_of(request), params or Params()
    alpha = given.alpha if "alpha" in given.model_fields_set else service.config.alpha
    wanted = Wanted(rows, alpha, call.began, call.began + _TIMEOUT_S, "detector", call.name, {})
    return await until_gone(request, service.judge.judge(wanted))


def _as_json(found: Sequence[BaseModel] | Sequence[Sequence[BaseModel]]) -> Response:
    def plain_of(one: Any) -> Any:
        return one.model_dump(mode="json") if isinstance(one, BaseModel) else [plain_of(part) for part in one]

    return Response(json.dumps(plain_of(found), allow_nan=False), media_type="application/json")


def detector_routes(service: Service) -> APIRouter:
    """`POST /api/v1/text/contents` and `POST /api/v1/text/chat`."""
    router = APIRouter(route_class=JsonRoute, tags=["detector"])
    may = documented(*EVERYWHERE, *BODY, *SCORING, "unknown-detector")

    def check(detector_id: str | None) -> None:
        if service.config.detector_id is None:
            raise Problem("not-found")
        if detector_id != service.config.detector_id:
            raise Problem("unknown-detector", "the header detector-id names another one")

    @router.post("/api/v1/text/contents", responses={200: {"model": list[list[Span]]}} | may)
    async def contents(
        request: Request, asked: Contents, detector_id: Annotated[str | None, Header()] = None
    ) -> Response:
        """For each text the hottest runs of tokens, if it is flagged."""
        check(detector_id)
        rows = [plain(text, "tokens") for text in asked.contents]
        judged = await _judged(service, request, rows, asked.detector_params)
        made = service.engine.artifact["calibration_sha256"]
        return _as_json([_spans(one, made) for one in judged])

    @router.post("/api/v1/text/chat", responses={200: {"model": list[Detection]}} | may)
    async def conversation(
        request: Request, asked: Chat, detector_id: Annotated[str | None, Header()] = None
    ) -> Response:
        """One detection, if the chat is flagged."""
        check(service.config.detector_id if detector_id is None else detector_id)
        rows = chat_rows([message.model_dump() for message in asked.messages])
        if not rows:
            raise Problem("nothing-to-score")
        (one,) = await _judged(service, request, rows, asked.detector_params)
        about = _about(one, service.engine.artifact["calibration_sha256"])
        score = 1 - one.scored.p_value
        found = Detection(detection=DETECTION, detection_type=KIND, score=score, metadata=about)
        return _as_json([found] if one.flagged else [])

    return router
