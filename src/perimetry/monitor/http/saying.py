"""Verdicts in the words of the contract."""

import math
from collections.abc import Mapping, Sequence

from perimetry import __version__
from perimetry.monitor.engine import Engine, Some, TokenScored
from perimetry.monitor.http.fairness import discoveries, fpr_interval
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.judging import Judged
from perimetry.monitor.http.schemas import (
    Artifact,
    Concept,
    Fdr,
    Partial,
    Score,
    ScoreBatch,
    Timing,
    Token,
    Usage,
)
from perimetry.monitor.http.views import Capabilities, Group

__all__ = ["batch_of", "capabilities", "partial_of", "score_of"]


def _tokens(found: Sequence[TokenScored], first: int = 0) -> list[Token]:
    return [
        Token(i=i, start=t.start, end=t.end, text=t.text, special=t.special, score=t.score)
        for i, t in enumerate(found, start=first)
    ]


def score_of(judged: Judged, artifact: Mapping[str, str]) -> Score:
    """One verdict; tokens and concepts where they were asked for."""
    scored, detail = judged.scored, judged.row.detail
    more: dict[str, object] = {}
    if detail != "none":
        more["tokens"] = _tokens(scored.tokens)
    if detail == "concepts":
        more["concepts"] = [
            Concept(
                index=c.latent,
                label=c.label,
                energy=c.energy,
                count=c.n_tokens,
                max_token=c.max_token,
                contexts=list(c.contexts),
            )
            for c in scored.concepts
        ]
    return Score(
        id=judged.id,
        created=judged.created,
        score=scored.score,
        p_value=scored.p_value,
        neg_log10_p=max(0.0, -math.log10(scored.p_value)),
        flagged=judged.flagged,
        alpha=judged.alpha,
        fpr_interval=list(fpr_interval(judged.alpha, scored.n_calibration)),
        group=scored.group,
        group_fallback=scored.fallback,
        n_calibration=scored.n_calibration,
        usage=Usage(tokens=scored.n_tokens, scored_tokens=scored.scored_tokens, truncated=False),
        artifact=Artifact.model_validate(dict(artifact)),
        timing_ms=Timing(queue=scored.queue_ms, forward=scored.forward_ms, total=judged.total_ms),
        event=judged.event,
        **more,  # pyright: ignore[reportArgumentType]
    )


def batch_of(judged: Sequence[Judged], artifact: Mapping[str, str]) -> ScoreBatch:
    """Several verdicts, and which of the texts are rejected together at a false discovery rate of alpha."""
    q = judged[0].alpha
    rejected = discoveries([one.scored.p_value for one in judged], q)
    return ScoreBatch(results=[score_of(one, artifact) for one in judged], fdr=Fdr(method="BH", q=q, rejected=rejected))


def partial_of(part: Some) -> Partial:
    """A part of a text."""
    return Partial.model_validate(
        {
            "seq": part.seq,
            "from": part.begin,
            "to": part.end,
            "tokens": _tokens(part.tokens, part.begin),
            "running_score": part.running_score,
        }
    )


def capabilities(config: HttpConfig, engine: Engine) -> Capabilities:
    """What the service can do."""
    return Capabilities(
        api="1",
        version=__version__,
        artifact=Artifact.model_validate(dict(engine.artifact)),
        groups=[
            Group(
                name=g.name,
                n=g.n,
                alpha_min=g.alpha_min,
                threshold=g.threshold,
                fpr_interval=[g.fpr_low, g.fpr_high],
            )
            for g in engine.groups
        ],
        alpha_default=config.alpha,
        mode=config.mode,
        on_error=config.fails,
        limits=config.limits.model_dump(mode="json") | dict(engine.limits),
        adapters={
            "detector": config.detector_id is not None,
            "litellm": config.litellm,
            "proxy": config.upstream is not None,
        },
    )
