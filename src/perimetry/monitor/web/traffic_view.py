"""What came through of late as the page shows it: p-values, drift, flagged texts, the last events."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from perimetry.monitor.http.sinks import DriftSource, EventQuery, EventSink, Slice, Stored
from perimetry.monitor.problems import Problem
from perimetry.monitor.web.escapes import plain
from perimetry.monitor.web.words import count, moment, number, percent, sure

__all__ = ["BINS", "SHOWN", "current_drift", "drift_view", "event_view", "traffic_view"]

BINS: Final = 20
"""Bins of the histogram of p-values."""
SHOWN: Final = 50
"""Events of a list at most."""
_HOURS: Final = 24
_PAGES: Final = 10
"""Pages of events that are looked through for the last ones."""
_DRIFT_S: Final = 2.0
"""Seconds that drift may take to say how it is."""


class _Gate(NamedTuple):
    """From which effect on a test counts."""

    end: float
    """Where the scale ends; it begins at 0."""
    zones: tuple[tuple[float, float], ...]
    """Where an effect is large enough to count."""
    says: str
    """The same in words."""


_GATES: Final = {"auroc_gap": 0.05, "wasserstein": 0.2, "witness": 0.6, "mix": 0.1}
"""Least effects, where the watch does not say its own."""


def _gate(test: str, effect: str, value: float, gates: Mapping[str, Any]) -> _Gate | None:
    least = {name: sure(gates.get(name)) or usual for name, usual in _GATES.items()}
    gap, moved = least["auroc_gap"], least["wasserstein"]
    if (test, effect) == ("ks", "auroc"):
        zones = ((0.0, 0.5 - gap), (0.5 + gap, 1.0))
        return _Gate(1.0, zones, f"from {number(gap)} away from one half")
    if (test, effect) == ("ks", "wasserstein1"):
        end = max(2 * moved, 1.25 * value)
        return _Gate(end, ((moved, end),), f"from {number(moved)} robust deviations")
    if (test, effect) == ("mmd", "auroc"):
        return _Gate(1.0, ((least["witness"], 1.0),), f"from {number(least['witness'])}")
    if test == "group_mix":
        return _Gate(1.0, ((least["mix"], 1.0),), f"from {number(least['mix'])}; reported, never an alarm")
    return None


_ASKS: Final = {
    "ks": "Are the scores, ranked within their groups, spread as in the calibration?",
    "mmd": "Do scores and concepts together look as in the calibration?",
    "group_mix": "Do the groups come in the same shares?",
}


async def current_drift(source: DriftSource | None) -> Mapping[str, Any] | None:
    """What is known of drift; None where nothing is, for whatever reason."""
    if source is None:
        return None
    try:
        async with asyncio.timeout(_DRIFT_S):
            return await source.current()
    except (Problem, TimeoutError):
        return None


async def _last(sink: EventSink, query: EventQuery) -> tuple[list[Stored], int]:
    """The last events that fit, newest first, and how many were lost since the store was made."""
    found: list[Stored] = []
    dropped = 0
    for _ in range(_PAGES):
        page = await sink.page(query)
        found, dropped = [*found, *page.events][-SHOWN:], page.dropped_total
        if page.next is None:
            break
        query = query._replace(since=page.next)
    return found[::-1], dropped


def event_view(event: Stored) -> dict[str, Any]:
    """One event in words."""
    when = datetime.fromisoformat(event["ts"]).astimezone(UTC)
    return {
        "id": event["id"],
        "ts": moment(when),
        "time": f"{when:%H:%M:%S}",
        "score": number(sure(event["score"])),
        "p": number(sure(event["p_value"])),
        "flagged": bool(event["flagged"]),
        "group": plain(str(event["group"])),
        "adapter": plain(str(event.get("adapter") or "")),
        "tokens": count(int(event["n_tokens"])),
    }


def drift_view(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Drift in words and in places on scales of 400 units; None where nothing is known."""
    if found is None:
        return None
    value, limit = (sure(found["cusum"].get(name)) or 0.0 for name in ("value", "threshold"))
    most = max(1.25 * limit, value, 1e-9)
    return {
        "state": plain(str(found["state"])),
        "as_of": plain(str(found["as_of"])),
        "when": moment(datetime.fromisoformat(str(found["as_of"]))),
        "window": count(int(found["window"])),
        "reference_n": count(int(found["reference_n"])),
        "tests": [_test(test, found.get("gates") or {}) for test in found["tests"]],
        "cusum": {
            "value": number(value),
            "threshold": number(limit),
            "alarm": bool(found["cusum"].get("alarm")),
            "at": round(400 * value / most),
            "limit": round(400 * limit / most),
        },
        "budget": {
            "windows": number(sure(found["budget"].get("windows_per_false_alarm"))),
            "observed": number(sure(found["budget"].get("observed"))),
        },
        "rising": [
            {"index": int(one["index"]), "now": percent(float(one["rate_now"])), "ref": percent(float(one["rate_ref"]))}
            for one in found.get("rising_concepts") or ()
        ],
    }


def _test(test: Mapping[str, Any], gates: Mapping[str, Any]) -> dict[str, Any]:
    name, kind = str(test["name"]), str(test.get("effect_name") or "")
    ends = [end for end in map(sure, test.get("effect_ci95") or ()) if end is not None]
    effect = sure(test["effect"])
    gate = None if effect is None else _gate(name, kind, effect, gates)
    return {
        "name": plain(name),
        "asks": _ASKS.get(name, ""),
        "statistic": number(sure(test["statistic"])),
        "p": number(sure(test["p_value"])),
        "effect": number(effect),
        "effect_name": plain(kind),
        "ci": " to ".join(number(end) for end in ends),
        "over": bool(test["over"]),
        "gate": gate.says if gate else "",
        "scale": None if gate is None or effect is None else _scale(effect, ends, gate),
    }


def _scale(effect: float, ends: Sequence[float], gate: _Gate) -> dict[str, Any]:
    """Places on a line of 400 units."""

    def place(value: float) -> int:
        return round(400 * min(1.0, max(0.0, value / gate.end)))

    return {
        "zones": [(place(a), place(b) - place(a)) for a, b in gate.zones],
        "low": place(min([effect, *ends])),
        "high": place(max([effect, *ends])),
        "at": place(effect),
    }


def _histogram(slices: Sequence[Slice]) -> dict[str, Any]:
    bins = [sum(one.histogram[k] for one in slices) for k in range(BINS)]
    n = sum(bins)
    half = 1.96 * math.sqrt(n * (1 / BINS) * (1 - 1 / BINS))
    rows = [
        {"from": number(k / BINS, 2), "to": number((k + 1) / BINS, 2), "n": count(found)}
        for k, found in enumerate(bins)
    ]
    return {"bins": bins, "n": n, "even": n / BINS, "half": half, "rows": rows, "expected": number(n / BINS)}


async def traffic_view(sink: EventSink, source: DriftSource | None, alpha: float, now: datetime) -> dict[str, Any]:
    """Everything of the view. Errors: `Problem` of `internal` where the store cannot be read."""
    begin = now - timedelta(hours=_HOURS)
    slices = await sink.traffic(begin.replace(minute=0, second=0, microsecond=0), 60)
    flagged, _ = await _last(sink, EventQuery(begin=begin, flagged=True, limit=1000))
    events, dropped = await _last(sink, EventQuery(begin=now - timedelta(minutes=10), limit=1000))
    total, hits = sum(one.n for one in slices), sum(one.flagged for one in slices)
    return {
        "hours": _HOURS,
        "total": count(total),
        "flagged": count(hits),
        "share": percent(hits / total) if total else "–",
        "alpha": percent(alpha),
        "alpha_value": alpha,
        "dropped": count(dropped),
        "histogram": _histogram(slices),
        "series": [
            {"at": int(one.begin.timestamp()), "time": moment(one.begin), "n": one.n, "flagged": one.flagged}
            for one in slices
        ],
        "flagged_events": [event_view(event) for event in flagged if event.get("adapter") != "page"],
        "events": [event_view(event) for event in events],
        "last_id": max((event["id"] for event in events), default=0),
        "drift": drift_view(await current_drift(source)),
    }
