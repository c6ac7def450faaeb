"""The tables of the event store, for SQLite and for PostgreSQL.

SQLite keeps strict types and checks, so that its integrity check sees a value that a damaged page has turned into nonsense.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.dialects import sqlite

__all__ = ["METADATA", "artifact", "drift_window", "event", "event_concept", "event_text", "meta", "rollup"]

_INT: Final = BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
_REAL: Final = Double().with_variant(sqlite.REAL(), "sqlite")
_FLAG: Final = Boolean().with_variant(sqlite.INTEGER(), "sqlite")

METADATA: Final = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s"})
"""All tables."""


def _int(name: str, *more: Any, null: bool = False) -> Column[Any]:
    return Column(name, _INT, *more, nullable=null)


def _text(name: str, *, null: bool = False, unique: bool = False) -> Column[Any]:
    return Column(name, Text, nullable=null, unique=unique or None)


def _is_json(name: str) -> CheckConstraint:
    """SQLite checks it with each row and in its integrity check; PostgreSQL of most versions has no such function."""
    return CheckConstraint(f"json_valid({name})", name=f"{name}_json").ddl_if(dialect="sqlite")


def _owner() -> Column[Any]:
    return Column("event_id", _INT, ForeignKey("event.id", ondelete="CASCADE"), primary_key=True, autoincrement=False)


event: Final = Table(
    "event",
    METADATA,
    Column("id", _INT, primary_key=True),
    _text("uuid", unique=True),
    _text("request_id"),
    _int("ts_us"),
    _text("artifact_id"),
    _text("adapter"),
    Column("prompt_hmac", LargeBinary, nullable=False),
    _int("n_chars"),
    _int("n_tokens"),
    _text("group_id"),
    Column("score", _REAL),
    Column("p_value", _REAL),
    Column("flagged", _FLAG, nullable=False),
    _text("outcome"),
    _int("queue_us"),
    _int("forward_us"),
    Column("summary", LargeBinary),
    _text("metadata"),
    CheckConstraint("length(uuid) = 36", name="uuid_length"),
    CheckConstraint("length(prompt_hmac) = 16", name="hmac_length"),
    CheckConstraint("p_value > 0 AND p_value <= 1", name="p_value_range"),
    CheckConstraint("n_chars >= 0 AND n_tokens >= 0 AND queue_us >= 0 AND forward_us >= 0", name="counts"),
    _is_json("metadata"),
    sqlite_autoincrement=True,
    sqlite_strict=True,
)
"""One prompt a row; `metadata` is JSON."""

event_concept: Final = Table(
    "event_concept",
    METADATA,
    _owner(),
    Column("concept", _INT, primary_key=True, autoincrement=False),
    Column("energy", _REAL, nullable=False),
    # A row is a tuple, and the name of its column must not be that of a method.
    Column("count", _INT, key="tokens", nullable=False),
    _int("max_token"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
"""The concepts that spoke for the score of an event."""

event_text: Final = Table(
    "event_text",
    METADATA,
    _owner(),
    _text("text"),
    Column("redacted", _FLAG, nullable=False),
    _int("expires_us"),
    sqlite_strict=True,
)
"""The words of an event, where they are kept, and when they go."""

rollup: Final = Table(
    "rollup",
    METADATA,
    Column("minute", _INT, primary_key=True, autoincrement=False),
    Column("group_id", Text, primary_key=True),
    _int("n"),
    _int("flagged"),
    _text("histogram"),
    Column("sketch", LargeBinary, nullable=False),
    CheckConstraint("n > 0 AND flagged >= 0 AND flagged <= n", name="rollup_counts"),
    _is_json("histogram"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
"""Sums of one minute (since 1970) and one group: 20 bins of p-values as JSON, a sketch of the scores."""

drift_window: Final = Table(
    "drift_window",
    METADATA,
    Column("id", _INT, primary_key=True),
    _int("ts_us"),
    _text("artifact_id"),
    _int("n"),
    _text("results"),
    _is_json("results"),
    sqlite_autoincrement=True,
    sqlite_strict=True,
)
"""What the tests of one window said, as JSON."""

artifact: Final = Table(
    "artifact",
    METADATA,
    Column("id", Text, primary_key=True),
    _int("ts_us"),
    _text("hashes"),
    _is_json("hashes"),
    sqlite_strict=True,
)
"""What an artifact is made of, as JSON, and when it was first seen."""

meta: Final = Table(
    "meta",
    METADATA,
    Column("key", Text, primary_key=True),
    _int("number", null=True),
    _text("value", null=True),
    sqlite_strict=True,
)
"""Counters and states: schema version, CUSUM state (JSON), drops by reason."""

Index(None, event.c.ts_us)
Index(None, event.c.flagged, event.c.ts_us)
Index(None, event.c.group_id)
Index(None, event_text.c.expires_us)
