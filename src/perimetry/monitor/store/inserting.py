"""Events into tables: each once, with its concepts, its text and its share of the sums, in one transaction."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from perimetry.monitor.store.events import Event, Stored
from perimetry.monitor.store.rollups import add_to_rollups
from perimetry.monitor.store.tables import event, event_concept, event_text, meta

__all__ = ["DROPPED", "add_to_counters", "insert_events", "put_meta"]

DROPPED = "dropped."
"""What the keys of the counters of lost events begin with; the reason follows."""


def _insert(connection: Connection, table: Any) -> Any:
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _clean(text: str) -> str:
    """Text that both databases take: neither NUL nor halves of surrogate pairs."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _row(one: Event) -> dict[str, Any]:
    return {
        "uuid": one.uuid,
        "request_id": _clean(one.request_id),
        "ts_us": one.ts_us,
        "artifact_id": _clean(one.artifact_id),
        "adapter": _clean(one.adapter),
        "prompt_hmac": one.prompt_hmac,
        "n_chars": one.n_chars,
        "n_tokens": one.n_tokens,
        "group_id": _clean(one.group_id),
        "score": one.score,
        "p_value": one.p_value,
        "flagged": one.flagged,
        "outcome": _clean(one.outcome),
        "queue_us": one.queue_us,
        "forward_us": one.forward_us,
        "summary": one.summary,
        "metadata": json.dumps(dict(one.metadata), separators=(",", ":"), sort_keys=True),
    }


def insert_events(connection: Connection, events: Sequence[Event]) -> list[Stored]:
    """Write what is not there yet, known by its uuid, and give it back with its numbers, which ascend."""
    once = {one.uuid: one for one in reversed(events)}
    if not once:
        return []
    wanted = [once[one.uuid] for one in events if once[one.uuid] is one]
    statement = _insert(connection, event).on_conflict_do_nothing(index_elements=[event.c.uuid])
    rows = connection.execute(statement.returning(event.c.id, event.c.uuid), [_row(one) for one in wanted])
    fresh = [Stored(row.id, once[row.uuid]) for row in sorted(rows, key=lambda row: row.id)]
    concepts = [{"event_id": one.id, **seen._asdict()} for one in fresh for seen in one.event.concepts]
    if concepts:
        connection.execute(event_concept.insert(), concepts)
    texts = [
        {
            "event_id": one.id,
            "text": _clean(one.event.text),
            "redacted": one.event.redacted,
            "expires_us": one.event.expires_us,
        }
        for one in fresh
        if one.event.text is not None and one.event.expires_us is not None
    ]
    if texts:
        connection.execute(event_text.insert(), texts)
    add_to_rollups(connection, [one.event for one in fresh])
    return fresh


def add_to_counters(connection: Connection, drops: Mapping[str, int]) -> None:
    """Add to the persisted counters of lost events, by reason."""
    rows = [{"key": DROPPED + reason, "number": n} for reason, n in sorted(drops.items()) if n]
    if rows:
        insert = _insert(connection, meta)
        more = {"number": meta.c.number + insert.excluded.number}
        connection.execute(insert.on_conflict_do_update(index_elements=[meta.c.key], set_=more), rows)


def put_meta(connection: Connection, key: str, value: Any) -> None:
    """Remember a JSON value under a key, in the place of the one before."""
    insert = _insert(connection, meta)
    row = {"key": key, "value": json.dumps(value, allow_nan=False)}
    changed = {"value": insert.excluded.value}
    connection.execute(insert.on_conflict_do_update(index_elements=[meta.c.key], set_=changed), row)
