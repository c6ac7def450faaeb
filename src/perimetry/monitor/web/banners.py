"""What must be said above everything else: no score, a score to be read with care, a service that is not well."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from perimetry.monitor.engine import Scored
from perimetry.monitor.problems import PROBLEMS, Problem
from perimetry.monitor.web.escapes import plain

__all__ = ["OLD_DAYS", "Banner", "of_problem", "of_reading", "of_service"]

OLD_DAYS: Final = 90
"""Days after which the page asks whether a calibration still fits."""

_HELP: Final = {
    "alpha-unreachable": "Choose a higher false-alarm rate, or calibrate on more prompts.",
    "deadline": "Try again, or try a shorter prompt.",
    "loading": "The model is being loaded. This page looks again by itself; without scripts, load it again.",
    "nothing-to-score": "Every token of it is special or excluded. Type some words.",
    "too-many-tokens": "Shorten the prompt.",
}


class Banner(NamedTuple):
    """One thing to be said."""

    kind: Literal["error", "warn", "info"]
    """How bad it is."""
    text: str
    """In one or two sentences."""


def of_problem(problem: Problem) -> Banner:
    """Why there is no score."""
    wait = "" if problem.retry_after_s is None else f" Try again in {problem.retry_after_s} s."
    why = problem.detail or PROBLEMS[problem.kind][1]
    end = "" if why.endswith((".", "!", "?")) else "."
    more = _HELP.get(problem.kind, "")
    return Banner("error", f"No score ({problem.status} {problem.kind}): {why}{end}{wait} {more}".strip())


def of_reading(scored: Scored) -> list[Banner]:
    """What to mind when a reading is read."""
    if not scored.fallback:
        return []
    text = (
        f"The calibration has too few prompts of the group «{plain(scored.group)}». The p-value is held against all "
        f"{scored.n_calibration} calibration prompts instead, which may be of other lengths or kinds."
    )
    return [Banner("warn", text)]


def of_service(
    checks: Mapping[str, str], card: Mapping[str, Any], drift: Mapping[str, Any] | None, now: datetime
) -> list[Banner]:
    """What is wrong with the service, and whether its calibration is stale: the traffic has left it, or it is old."""
    found = [Banner("error", f"Not ready, {name}: {state}") for name, state in checks.items() if state != "ok"]
    if drift is not None and drift.get("state") == "alarm":
        text = "Stale calibration: the traffic of late no longer looks like the calibration prompts. See Traffic."
        found.append(Banner("warn", text))
    days = _age_days(card.get("written"), now)
    if days is not None and days > OLD_DAYS:
        found.append(Banner("warn", f"Stale calibration: the meter was written {days} days ago. Does it still fit?"))
    return found


def _age_days(written: object, now: datetime) -> int | None:
    try:
        then = datetime.fromisoformat(str(written))
    except ValueError:
        return None
    return (now - then.replace(tzinfo=then.tzinfo or UTC)).days
