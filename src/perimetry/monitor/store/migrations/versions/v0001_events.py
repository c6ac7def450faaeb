"""Events, their concepts and texts, sums by minute, drift windows, artifacts and counters."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

__all__ = ["branch_labels", "depends_on", "down_revision", "revision", "upgrade"]

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INT = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
REAL = sa.Double().with_variant(sqlite.REAL(), "sqlite")
FLAG = sa.Boolean().with_variant(sqlite.INTEGER(), "sqlite")


def _ints(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, INT, nullable=False) for name in names]


def _texts(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _is_json(name: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"json_valid({name})", name=f"{name}_json").ddl_if(dialect="sqlite")


def _owner() -> sa.Column[Any]:
    key = sa.ForeignKey("event.id", ondelete="CASCADE")
    return sa.Column("event_id", INT, key, primary_key=True, autoincrement=False)


def _event() -> None:
    op.create_table(
        "event",
        sa.Column("id", INT, primary_key=True),
        sa.Column("uuid", sa.Text, nullable=False, unique=True),
        *_texts("request_id"),
        *_ints("ts_us"),
        *_texts("artifact_id", "adapter"),
        sa.Column("prompt_hmac", sa.LargeBinary, nullable=False),
        *_ints("n_chars", "n_tokens"),
        *_texts("group_id"),
        sa.Column("score", REAL),
        sa.Column("p_value", REAL),
        sa.Column("flagged", FLAG, nullable=False),
        *_texts("outcome"),
        *_ints("queue_us", "forward_us"),
        sa.Column("summary", sa.LargeBinary),
        *_texts("metadata"),
        sa.CheckConstraint("length(uuid) = 36", name="uuid_length"),
        sa.CheckConstraint("length(prompt_hmac) = 16", name="hmac_length"),
        sa.CheckConstraint("p_value > 0 AND p_value <= 1", name="p_value_range"),
        sa.CheckConstraint("n_chars >= 0 AND n_tokens >= 0 AND queue_us >= 0 AND forward_us >= 0", name="counts"),
        _is_json("metadata"),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index("ix_event_ts_us", "event", ["ts_us"])
    op.create_index("ix_event_flagged_ts_us", "event", ["flagged", "ts_us"])
    op.create_index("ix_event_group_id", "event", ["group_id"])


def _parts() -> None:
    op.create_table(
        "event_concept",
        _owner(),
        sa.Column("concept", INT, primary_key=True, autoincrement=False),
        sa.Column("energy", REAL, nullable=False),
        *_ints("count", "max_token"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "event_text",
        _owner(),
        *_texts("text"),
        sa.Column("redacted", FLAG, nullable=False),
        *_ints("expires_us"),
        sqlite_strict=True,
    )
    op.create_index("ix_event_text_expires_us", "event_text", ["expires_us"])


def upgrade() -> None:
    """Make the tables."""
    _event()
    _parts()
    op.create_table(
        "rollup",
        sa.Column("minute", INT, primary_key=True, autoincrement=False),
        sa.Column("group_id", sa.Text, primary_key=True),
        *_ints("n", "flagged"),
        *_texts("histogram"),
        sa.Column("sketch", sa.LargeBinary, nullable=False),
        sa.CheckConstraint("n > 0 AND flagged >= 0 AND flagged <= n", name="rollup_counts"),
        _is_json("histogram"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "drift_window",
        sa.Column("id", INT, primary_key=True),
        *_ints("ts_us"),
        *_texts("artifact_id"),
        *_ints("n"),
        *_texts("results"),
        _is_json("results"),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_table(
        "artifact",
        sa.Column("id", sa.Text, primary_key=True),
        *_ints("ts_us"),
        *_texts("hashes"),
        _is_json("hashes"),
        sqlite_strict=True,
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("number", INT),
        sa.Column("value", sa.Text),
        sqlite_strict=True,
    )
