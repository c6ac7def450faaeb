"""The sentinel: four prompts whose ids, residuals and scores must be what they were, or nothing is scored.

Artifacts hold no readings of their own, so what the sentinel compares with is what the service found when it first loaded this
meter: kept in its folder of state, and the same for every later start. A change of machine, libraries or weights in between shows; one
that came before the first start does not, since there was nothing to compare with.
"""

import math
from pathlib import Path
from typing import Any, Final, NamedTuple

from perimetry.errors import CorruptArtifact
from perimetry.monitor.tap import AbstractTap, Facts, Probe
from perimetry.storage import hash_bytes, read_json, write_json

__all__ = ["COSINE", "Verdict", "check_sentinel"]

COSINE: Final = 0.999
"""Least cosine between a mean residual and the one of the first start."""


class Verdict(NamedTuple):
    """What the sentinel says."""

    ok: bool
    """Whether readings may be believed."""
    detail: str
    """Why, in one sentence."""


def check_sentinel(tap: AbstractTap, folder: Path) -> Verdict:
    """Compare a tap with its first start; on the first one keep what it gives. Errors: `CorruptArtifact`, `StorageError`."""
    facts, found = tap.facts, tap.probe()
    if not all(math.isfinite(n) for probe in found for n in (probe.score, *probe.vector)):
        return Verdict(ok=False, detail="a prompt of the sentinel gives no finite numbers")
    file = folder / f"sentinel-{hash_bytes(facts.digest.encode())[:24]}.json"
    if not file.is_file():
        write_json(file, {"digest": facts.digest, "artifact": facts.artifact, "probes": [p._asdict() for p in found]})
        return Verdict(ok=True, detail="first start with this meter: what it gives is kept")
    for number, (now, then) in enumerate(zip(found, _stored(read_json(file), file), strict=False)):
        why = _difference(now, then, facts)
        if why:
            return Verdict(ok=False, detail=f"prompt {number}: {why} than at the first start ({file})")
    return Verdict(ok=True, detail="as at the first start")


def _stored(document: Any, file: Path) -> list[Probe]:
    try:
        found = [Probe(**probe) for probe in document["probes"]]
        whole = all(math.isfinite(p.score) and p.vector and p.ids for p in found)
    except (KeyError, TypeError) as error:
        raise CorruptArtifact(f"{file} holds no sentinel; remove it to begin anew") from error
    if not whole or not found:
        raise CorruptArtifact(f"{file} holds no whole sentinel; remove it to begin anew")
    return found


def _difference(now: Probe, then: Probe, facts: Facts) -> str:
    """What is not as it was; empty where all is."""
    if now.text != then.text or now.ids != then.ids:
        return "other token ids"
    cosine = _cosine(now.vector, then.vector)
    if not cosine >= COSINE:
        return f"residuals with a cosine of {cosine:.5f}, further off"
    moved, most = abs(now.score - then.score), facts.tolerance * facts.spread
    if not moved <= most:
        return f"a score that moved by {moved:.3g}, at most {most:.3g} is borne; it is another one"
    return ""


def _cosine(one: list[float], other: list[float]) -> float:
    if len(one) != len(other):
        return -1.0
    lengths = math.hypot(*one) * math.hypot(*other)
    return math.fsum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 1.0
