"""Scores and failures in the words of OpenTelemetry's conventions for generative models, without a word of the prompt.

The conventions are in development. The version that is meant is pinned: the last one before they moved to a repository of their own.
"""

import math
from typing import Final

from perimetry.monitor.http.ids import valid_name
from perimetry.monitor.http.sinks import NewEvent

__all__ = ["EVENT", "NAME", "RESPONSE_ID", "SCHEMA_URL", "of_failure", "of_score"]

EVENT: Final = "gen_ai.evaluation.result"
"""Name of the event."""
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"
"""The version of the conventions that the names are of."""
NAME: Final = "perimetry.outside"
"""Name of the evaluation."""
RESPONSE_ID: Final = "gen_ai.response.id"
"""Attribute of the answer that belongs to the prompt, and the key of a request's metadata by which a client tells it."""


def of_score(event: NewEvent, alpha: float) -> dict[str, str | float]:
    """Attributes of a text that was scored. The value is -log10 of the p-value: 0 is ordinary, higher is further outside."""
    found: dict[str, str | float] = {
        "gen_ai.evaluation.name": NAME,
        "gen_ai.evaluation.score.value": max(0.0, -math.log10(event.p_value)),
        "gen_ai.evaluation.score.label": "outside" if event.flagged else "inside",
        "gen_ai.evaluation.explanation": _explained(event, alpha),
        "perimetry.p_value": event.p_value,
        "perimetry.alpha": alpha,
        "perimetry.group": event.group,
        "perimetry.artifact": event.artifact["calibration_sha256"],
    }
    answer = event.metadata.get(RESPONSE_ID)
    if answer is not None and valid_name(answer):
        found[RESPONSE_ID] = answer
    return found


def _explained(event: NewEvent, alpha: float) -> str:
    share = f"a share of {event.p_value:.3g} of clean prompts of the group {event.group} would score as high or higher"
    return f"{share}; {'at most' if event.flagged else 'above'} the false-alarm rate {alpha:.3g}"


def of_failure(alpha: float, kind: str) -> dict[str, str | float]:
    """Attributes of a request that could not be scored. `kind`: of `PROBLEMS`."""
    return {"gen_ai.evaluation.name": NAME, "perimetry.alpha": alpha, "error.type": kind}
