"""Sums of events by minute and group: small, mergeable, and kept when the events are gone."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, select, text, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from perimetry.errors import CorruptArtifact
from perimetry.monitor.store.events import Event
from perimetry.monitor.store.sketch import Sketch
from perimetry.monitor.store.tables import rollup

__all__ = ["BINS", "MINUTE_US", "Rollup", "add_to_rollups", "rollup_of_row", "rollups_of"]

BINS: Final = 20
"""Bins of the p-values, of equal width from 0 to 1; a value on an edge belongs to the lower one."""

MINUTE_US: Final = 60_000_000
"""Microseconds of a minute."""

LOCK: Final = 0x70657270


class Rollup(NamedTuple):
    """Sums of the scored events of one group over one minute, or over several that were merged."""

    minute: int
    """The minute, or the first one, since 1970."""
    group: str
    """Group of the calibration."""
    n: int
    """Events of the outcome `ok` that were not marked as synthetic."""
    flagged: int
    """Those that were flagged."""
    histogram: tuple[int, ...]
    """How many p-values lie in each of the 20 bins."""
    sketch: Sketch
    """Of the scores."""

    def merge(self, other: "Rollup") -> "Rollup":
        """Both together, under the earlier minute and the group of this one."""
        bins = tuple(a + b for a, b in zip(self.histogram, other.histogram, strict=True))
        first = min(self.minute, other.minute)
        return Rollup(
            first, self.group, self.n + other.n, self.flagged + other.flagged, bins, self.sketch.merge(other.sketch)
        )


def _bin(p_value: float) -> int:
    """Bin of a p-value.

    >>> _bin(0.05), _bin(0.051), _bin(1.0), _bin(1e-9)
    (0, 1, 19, 0)
    """
    return min(BINS - 1, max(0, math.ceil(p_value * BINS) - 1))


def rollups_of(events: Iterable[Event]) -> list[Rollup]:
    """Sums of these events, by minute and group. Events that were not scored, or marked as synthetic, do not count."""
    found: dict[tuple[int, str], list[tuple[float, float, bool]]] = defaultdict(list)
    for event in events:
        scored = event.outcome == "ok" and event.score is not None and event.p_value is not None
        if scored and "synthetic" not in event.metadata:
            key = event.ts_us // MINUTE_US, event.group_id
            found[key].append((event.score or 0.0, event.p_value or 0.0, event.flagged))
    sums = []
    for (minute, group), seen in found.items():
        bins = [0] * BINS
        for _, p_value, _ in seen:
            bins[_bin(p_value)] += 1
        sketch = Sketch.of(score for score, _, _ in seen)
        sums.append(Rollup(minute, group, len(seen), sum(flag for _, _, flag in seen), tuple(bins), sketch))
    return sums


def rollup_of_row(row: Any) -> Rollup:
    """The sums in a row of the table. Errors: `CorruptArtifact` where they do not agree."""
    try:
        bins, sketch = tuple(json.loads(row.histogram)), Sketch.from_bytes(bytes(row.sketch))
    except ValueError as error:
        raise CorruptArtifact(f"the sums of minute {row.minute} are damaged: {error}; open the store anew") from error
    if len(bins) != BINS or sum(bins) != row.n or sketch.n != row.n:
        raise CorruptArtifact(f"the sums of minute {row.minute} do not agree; open the store anew")
    return Rollup(row.minute, row.group_id, row.n, row.flagged, bins, sketch)


def add_to_rollups(connection: Connection, events: Sequence[Event]) -> None:
    """Add events to the sums, in the transaction of `connection`. Errors: `CorruptArtifact` for damaged sums."""
    sums = {(found.minute, found.group): found for found in rollups_of(events)}
    if not sums:
        return
    if connection.dialect.name == "postgresql":
        # Two replicas add to the same minute: one reads what the other has written. Nothing else is locked after this.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    here = tuple_(rollup.c.minute, rollup.c.group_id)
    for row in connection.execute(select(rollup).where(here.in_(list(sums)))):
        old = rollup_of_row(row)
        sums[old.minute, old.group] = old.merge(sums[old.minute, old.group])
    rows = [
        {
            "minute": found.minute,
            "group_id": found.group,
            "n": found.n,
            "flagged": found.flagged,
            "histogram": json.dumps(found.histogram, separators=(",", ":")),
            "sketch": found.sketch.to_bytes(),
        }
        for found in sums.values()
    ]
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(rollup)
    changed = {name: insert.excluded[name] for name in ("n", "flagged", "histogram", "sketch")}
    connection.execute(
        insert.on_conflict_do_update(index_elements=[rollup.c.minute, rollup.c.group_id], set_=changed), rows
    )
