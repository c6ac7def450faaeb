"""Calibrations and traffic out of a generator, for tests of drift."""

import array
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from tests.monitor.store.makers import uuid_at

from perimetry.monitor.baseline import Baseline
from perimetry.monitor.drift.drift_config import DriftConfig
from perimetry.monitor.drift.reference import Reference
from perimetry.monitor.drift.watch import Seen, Watch
from perimetry.monitor.engine import ConceptScored
from perimetry.monitor.http.sinks import NewEvent
from perimetry.monitor.store.event_store import EventStore
from perimetry.monitor.store.store_config import StoreConfig

NOON = 1_790_000_000.0
ARTIFACT = {
    "model_rev": "tiny",
    "tap": "resid_post.1",
    "sae_sha256": "a",
    "calibration_sha256": "c1",
    "dtype": "float32",
    "backend": "cpu",
}
OTHER = ARTIFACT | {"calibration_sha256": "c2"}
GROUPS = ("short", "long")
WIDTH = 6


def rows_of(draw: np.random.Generator, n: int, *, shift: float = 0.0, turn: float = 0.0, long: float = 0.5) -> Any:
    """Group and summary of n prompts: the groups differ in the level of the score, and every column depends on the first.

    `shift` moves the score; `turn` moves the other columns alone; `long` is the share of the second group.
    """
    group = (draw.random(n) < long).astype(np.int64)
    base = draw.normal(size=(n, WIDTH))
    base[:, 1:] += 0.5 * base[:, :1] + turn
    base[:, 0] += 3.0 * group + shift
    return group, base.astype(np.float32).astype(np.float64)


def baseline_of_rows(
    group: np.ndarray, summaries: np.ndarray, *, width: int = WIDTH, rates: Sequence[float] = ()
) -> Baseline:
    """What the worker would tell of these calibration prompts."""
    flat = array.array("f", summaries[:, :width].astype(np.float32).reshape(-1).tolist())
    why = "" if width > 1 else "an older meter"
    return Baseline(GROUPS, array.array("i", group.tolist()), width, flat, array.array("f", rates), why)


def a_baseline(n: int = 400, seed: int = 0, **more: Any) -> Baseline:
    """A calibration of n prompts."""
    return baseline_of_rows(*rows_of(np.random.default_rng([99, seed]), n), **more)


def quick(**more: Any) -> DriftConfig:
    """Small windows, and fewer relabellings than a service would draw."""
    return DriftConfig.model_validate({"window": 50, "permutations": 999, "points": 300} | more)


def a_watch(config: DriftConfig | None = None, artifact: str = "c1", **more: Any) -> Watch:
    """The watch over a fresh calibration."""
    config = config or quick()
    return Watch(config, Reference(a_baseline(**more), config), artifact, "2026-01-31T12:00:00+00:00")


def prompts(seed: int, n: int, *, artifact: str = "c1", p: float | None = None, **more: Any) -> list[Seen]:
    """Prompts as drift sees them; p-values uniform unless given."""
    draw = np.random.default_rng([7, seed])
    group, summaries = rows_of(draw, n, **more)
    found = draw.random(n) if p is None else np.full(n, p)
    return [
        Seen(artifact, GROUPS[g], float(max(1e-6, u)), float(row[0]), tuple(row.tolist()), 20, ())
        for g, row, u in zip(group, summaries, found, strict=True)
    ]


def events(seen: Sequence[Seen], **more: Any) -> list[NewEvent]:
    """The same prompts as the HTTP layer tells of them."""
    plain: dict[str, Any] = {"adapter": "score", "outcome": "ok", "artifact": ARTIFACT, "metadata": {}} | more
    return [
        NewEvent(
            uuid=uuid_at(int(NOON * 1e6)),
            request_id="r",
            created=datetime.fromtimestamp(NOON, UTC),
            text="a prompt",
            n_tokens=one.n_tokens,
            score=one.score,
            p_value=one.p_value,
            flagged=False,
            group=one.group,
            concepts=[ConceptScored(i, None, 1.0, n, 0, ()) for i, n in one.concepts],
            queue_ms=1.0,
            forward_ms=1.0,
            summary=one.summary,
            **plain,
        )
        for one in seen
    ]


def a_store(folder: Path, **more: Any) -> EventStore:
    """A store in a folder of its own, at noon; not open yet."""
    return EventStore(StoreConfig.model_validate({"folder": folder, "commit_ms": 0.0} | more), lambda: NOON)
