"""The versions of the schema, and the way from each to the newest."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from perimetry.errors import Incompatible
from perimetry.monitor.store.tables import meta

__all__ = ["REVISIONS", "SCHEMA", "migrate", "revision_of", "schema_hash"]

REVISIONS: Final = ("0001",)
"""Names of the versions, oldest first; each has a file in `versions`."""

SCHEMA: Final = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
"""The statements by which SQLite knows its tables."""

VERSIONS: Final = "alembic_version"
LOCK: Final = 0x70657269


def revision_of(connection: Connection) -> str | None:
    """The version of the schema that is there; None where there is none."""
    if not inspect(connection).has_table(VERSIONS):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSIONS}")).scalar()


def migrate(connection: Connection) -> None:
    """Bring the tables to the newest version, in the transaction of `connection`; replicas wait for each other.

    Errors: `Incompatible` for tables that a newer perimetry has made.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    found = revision_of(connection)
    if found == REVISIONS[-1]:
        return
    if found is not None and found not in REVISIONS:
        raise Incompatible(
            f"the event store has the schema {found!r}, and this perimetry knows {REVISIONS[0]} to {REVISIONS[-1]}; it was made "
            "by a newer perimetry: update this one, or give it another store"
        )
    _upgrade(connection)
    _seal(connection)


def _seal(connection: Connection) -> None:
    """Write down the version, and in SQLite the version twice and a hash of the schema: damage to one of them shows."""
    number = len(REVISIONS)
    values: list[dict[str, int | str | None]] = [{"key": "schema_version", "number": number, "value": None}]
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA user_version = {number}")
        written = connection.exec_driver_sql(SCHEMA).scalars().all()
        values.append({"key": "schema_sha256", "number": None, "value": schema_hash(written)})
    connection.execute(meta.delete().where(meta.c.key.in_([value["key"] for value in values])))
    connection.execute(meta.insert(), values)


def schema_hash(written: Sequence[str]) -> str:
    """SHA-256 of the statements that `SCHEMA` finds in an SQLite file."""
    return hashlib.sha256("\n".join(written).encode("utf-8", "surrogateescape")).hexdigest()


def _upgrade(connection: Connection) -> None:
    # Alembic is heavy, and a store that is up to date does without it.
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(__file__).parent))
    context = MigrationContext.configure(
        connection, opts={"script": script, "fn": lambda now, _: script._upgrade_revs("head", now)}
    )
    with Operations.context(context):
        context.run_migrations()
