"""Events and sums as they are read: in pages, by minute. Every call asks the database and so belongs into a worker thread."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, final

from sqlalchemy import Connection, Select, func, select

from perimetry.errors import UsageError
from perimetry.monitor.store.database import Database
from perimetry.monitor.store.events import ConceptSeen, Event, Stored
from perimetry.monitor.store.inserting import DROPPED
from perimetry.monitor.store.rollups import Rollup, rollup_of_row
from perimetry.monitor.store.tables import artifact, drift_window, event, event_concept, event_text, meta, rollup

__all__ = ["MOST", "Filter", "Page", "Reader"]

MOST: Final = 1_000
"""Events of a page at most."""


class Filter(NamedTuple):
    """Which events are wanted."""

    begin_us: int | None = None
    """From this time on, in microseconds since 1970."""
    end_us: int | None = None
    """Before this time."""
    flagged: bool | None = None
    """Only those that were flagged, or only those that were not."""
    group: str | None = None
    """Only of this group."""


class Page(NamedTuple):
    """Some events in the order of their numbers."""

    events: list[Stored]
    """The events."""
    next: int | None
    """What to give as `since` for the next page; None where this is the last one."""
    dropped_total: int
    """Events that were lost so far, as far as the database knows."""


def _event(row: Any, concepts: tuple[ConceptSeen, ...], text: Any) -> Stored:
    values = row._asdict()
    number = values.pop("id")
    words = {} if text is None else {"text": text.text, "redacted": bool(text.redacted), "expires_us": text.expires_us}
    plain = {
        "metadata": json.loads(row.metadata),
        "flagged": bool(row.flagged),
        "prompt_hmac": bytes(row.prompt_hmac),
        "summary": None if row.summary is None else bytes(row.summary),
    }
    return Stored(number, Event(**values | plain | words, concepts=concepts))


def _matching(wanted: Filter) -> Select[Any]:
    found = select(event)
    if wanted.begin_us is not None:
        found = found.where(event.c.ts_us >= wanted.begin_us)
    if wanted.end_us is not None:
        found = found.where(event.c.ts_us < wanted.end_us)
    if wanted.flagged is not None:
        found = found.where(event.c.flagged == wanted.flagged)
    if wanted.group is not None:
        found = found.where(event.c.group_id == wanted.group)
    return found


def _whole(connection: Connection, rows: Sequence[Any]) -> list[Stored]:
    """Events with their concepts and texts."""
    ids = [row.id for row in rows]
    concepts: dict[int, list[ConceptSeen]] = defaultdict(list)
    for row in connection.execute(select(event_concept).where(event_concept.c.event_id.in_(ids))):
        concepts[row.event_id].append(ConceptSeen(row.concept, row.energy, row.tokens, row.max_token))
    texts = {row.event_id: row for row in connection.execute(select(event_text).where(event_text.c.event_id.in_(ids)))}
    loudest = {
        number: tuple(sorted(seen, key=lambda one: (-one.energy, one.concept))) for number, seen in concepts.items()
    }
    return [_event(row, loudest.get(row.id, ()), texts.get(row.id)) for row in rows]


@final
class Reader:
    """Reads a store that may be written to at the same time."""

    def __init__(self, database: Database) -> None:
        """`database`: opened, and prepared before the first call."""
        self._database = database

    def page(self, since: int = 0, wanted: Filter | None = None, limit: int = 100) -> Page:
        """Events with numbers above `since`, at most `limit` of them (1 to 1,000), ascending.

        Errors: `UsageError` for another limit; those of SQLAlchemy where the database is down.
        """
        if not 1 <= limit <= MOST:
            raise UsageError(f"a page of {limit} events; wanted 1 to {MOST}")
        statement = _matching(wanted or Filter()).where(event.c.id > since).order_by(event.c.id).limit(limit + 1)
        with self._database.reader.begin() as connection:
            rows = connection.execute(statement).all()
            events = _whole(connection, rows[:limit])
            dropped = sum(_drops(connection).values())
        return Page(events, events[-1].id if len(rows) > limit else None, dropped)

    def nth_from_end(self, number: int) -> int:
        """The number after which `number` events follow; 0 where there are fewer."""
        statement = select(event.c.id).order_by(event.c.id.desc()).limit(1).offset(number)
        with self._database.reader.begin() as connection:
            return int(connection.execute(statement).scalar() or 0)

    def count(self, since: int = 0) -> int:
        """Events with numbers above `since`."""
        statement = select(func.count()).select_from(event).where(event.c.id > since)
        with self._database.reader.begin() as connection:
            return int(connection.execute(statement).scalar() or 0)

    def rollups(self, begin: int, end: int, minutes: int = 1, group: str | None = None) -> list[Rollup]:
        """Sums from minute `begin` to before `end` (since 1970), `minutes` together; by time, then group.

        Errors: `UsageError` for less than one minute together, `CorruptArtifact` for damaged sums.
        """
        if minutes < 1:
            raise UsageError(f"sums over {minutes} minutes; wanted 1 or more")
        statement = select(rollup).where(rollup.c.minute >= begin, rollup.c.minute < end)
        if group is not None:
            statement = statement.where(rollup.c.group_id == group)
        sums: dict[tuple[int, str], Rollup] = {}
        with self._database.reader.begin() as connection:
            for row in connection.execute(statement):
                start = begin + (row.minute - begin) // minutes * minutes
                found = rollup_of_row(row)._replace(minute=start)
                before = sums.get((start, found.group))
                sums[start, found.group] = found if before is None else before.merge(found)
        return [sums[key] for key in sorted(sums)]

    def drops(self) -> dict[str, int]:
        """Events that were lost, by reason, over all runs and replicas."""
        with self._database.reader.begin() as connection:
            return _drops(connection)

    def recall(self, key: str) -> Any:
        """What was remembered under a key; None where nothing was."""
        with self._database.reader.begin() as connection:
            found = connection.execute(select(meta.c.value).where(meta.c.key == key)).scalar()
        return None if found is None else json.loads(found)

    def artifacts(self) -> dict[str, dict[str, str]]:
        """What each artifact that has scored was made of."""
        with self._database.reader.begin() as connection:
            return {row.id: json.loads(row.hashes) for row in connection.execute(select(artifact))}

    def drift_windows(self, limit: int = 100) -> list[dict[str, Any]]:
        """The last windows of drift, the newest first: `ts_us`, `artifact_id`, `n` and `results`."""
        statement = select(drift_window).order_by(drift_window.c.id.desc()).limit(limit)
        with self._database.reader.begin() as connection:
            rows = connection.execute(statement).all()
        return [row._asdict() | {"results": json.loads(row.results)} for row in rows]


def _drops(connection: Connection) -> dict[str, int]:
    rows = connection.execute(select(meta.c.key, meta.c.number).where(meta.c.key.startswith(DROPPED)))
    return {row.key.removeprefix(DROPPED): row.number for row in rows}
