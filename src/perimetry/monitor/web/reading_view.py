"""One verdict as the page shows it: made once, shown by the template or, the same, by the script."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from perimetry.monitor.engine import ConceptScored, GroupFacts, TokenScored
from perimetry.monitor.http.fairness import fpr_interval
from perimetry.monitor.http.judging import Judged
from perimetry.monitor.web.banners import Banner, of_reading
from perimetry.monitor.web.escapes import Pieces, pieces, plain
from perimetry.monitor.web.heat import Heat, heat_of
from perimetry.monitor.web.links import concept_url
from perimetry.monitor.web.words import count, interval, moment, number, percent

__all__ = ["POOLED", "reading_view"]

POOLED: Final = "pooled"
"""Group of all calibration prompts together."""
_OPEN, _CLOSE = "«", "»"


def reading_view(
    judged: Judged,
    groups: Sequence[GroupFacts],
    card: Mapping[str, Any],
    alpha_default: float,
    banners: Sequence[Banner] = (),
) -> dict[str, Any]:
    """Plain values. `facts`: texts by name. `rail`: places on the line of p-values, in thousandths. `tokens`, `legend`, `concepts`, `banners`.

    `groups`: thresholds at `alpha_default`. `card`: as of the engine. `banners`: what is to be said beside the reading.
    """
    scored = judged.scored
    heat = heat_of(card.get("tokens") or {}, [t.score for t in scored.tokens if t.score is not None])
    return {
        "verdict": "outside" if judged.flagged else "inside",
        "facts": _facts(judged, groups, alpha_default),
        "rail": _rail(judged),
        "heat": heat.why,
        "legend": _legend(heat),
        "tokens": [_token(at, token, heat) for at, token in enumerate(scored.tokens)],
        "concepts": [_concept(concept, scored.tokens, card) for concept in scored.concepts],
        "banners": [banner._asdict() for banner in (*banners, *of_reading(scored))],
    }


def _facts(judged: Judged, groups: Sequence[GroupFacts], alpha_default: float) -> dict[str, str]:
    scored = judged.scored
    held = POOLED if scored.fallback else scored.group
    facts = next((group for group in groups if group.name == held), None)
    rarer = "at most" if judged.flagged else "above"
    return {
        "headline": "Outside what the model knows" if judged.flagged else "Inside what the model knows",
        "because": f"p = {number(scored.p_value)} is {rarer} the false-alarm rate of {number(judged.alpha)}",
        "p": number(scored.p_value),
        "nlp": number(max(0.0, -math.log10(scored.p_value)), 3),
        "score": number(scored.score),
        "threshold": number(facts.threshold if facts else None),
        "threshold_at": f"for false alarms of {percent(alpha_default)}",
        "fpr": interval(fpr_interval(judged.alpha, scored.n_calibration)),
        "group": plain(scored.group) + (" (too thin, all prompts used)" if scored.fallback else ""),
        "n": count(scored.n_calibration),
        "usage": f"{count(scored.scored_tokens)} of {count(scored.n_tokens)}",
        "time": f"{number(judged.total_ms, 3)} ms, of which {number(scored.forward_ms, 3)} ms in the model",
        "created": moment(judged.created),
        "event": {"off": "not kept", "dropped": "lost"}.get(judged.event, judged.event),
        "id": judged.id,
    }


def _rail(judged: Judged) -> dict[str, int]:
    """Places of p-value and rate on a line from 1 (left, 0) to 1 / (n + 1) (right, 1000), by their logarithms."""
    most = math.log(judged.scored.n_calibration + 1)
    places = {"p": judged.scored.p_value, "alpha": judged.alpha}
    return {name: round(1000 * min(1.0, max(0.0, -math.log(value) / most))) for name, value in places.items()}


def _legend(heat: Heat) -> list[dict[str, Any]]:
    first, *rest = heat.edges
    words = [f"below {number(first, 3)}", *(f"from {number(edge, 3)}" for edge in (first, *rest))]
    return [{"h": level, "text": text} for level, text in enumerate(words)]


def _token(at: int, token: TokenScored, heat: Heat) -> dict[str, Any]:
    """`p`: pieces. `h`: class, None where it does not count. `s`: score. `t`: tooltip. `l`: what is read out."""
    if token.score is None:
        title, level, score = f"token {at} · not scored", None, "–"
    else:
        level, score = heat.level(token.score), f"{token.score:.6g}"
        title = f"token {at} · score {score} · h{level}"
    name = plain(token.text).strip() or ("space" if token.text else "nothing")
    return {"p": _listed(pieces(token.text)), "h": level, "s": score, "t": title, "l": f"{name}, {title}"}


def _listed(found: Pieces) -> list[Any]:
    return [piece if isinstance(piece, str) else list(piece) for piece in found]


def _concept(concept: ConceptScored, tokens: Sequence[TokenScored], card: Mapping[str, Any]) -> dict[str, Any]:
    there = 0 <= concept.max_token < len(tokens)
    return {
        "index": concept.latent,
        "label": None if concept.label is None else _listed(pieces(concept.label)),
        "energy": number(concept.energy),
        "count": count(concept.n_tokens),
        "max_token": concept.max_token,
        "token": _listed(pieces(tokens[concept.max_token].text)) if there else [],
        "contexts": [_context(text) for text in concept.contexts],
        "url": concept_url(card.get("neuronpedia"), concept.latent, concept.label),
    }


def _context(text: str) -> list[list[Any]]:
    """Before the token, the token, and after it."""
    before, opened, rest = text.partition(_OPEN)
    token, closed, after = rest.partition(_CLOSE)
    parts = (before, token, after) if opened and closed else (text, "", "")
    return [_listed(pieces(part)) for part in parts]
