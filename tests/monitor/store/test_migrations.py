"""The schema that the migrations make is that of the tables; a newer one is refused."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from tests.monitor.store.makers import a_config, a_database, an_event, everything, fill

import perimetry.monitor.store.migrations as migrations
from perimetry.errors import Incompatible
from perimetry.monitor.store.database import Database
from perimetry.monitor.store.store_config import StoreConfig
from perimetry.monitor.store.tables import METADATA


def _difference(connection: Connection) -> list[object]:
    return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA)


def _start(database: Database) -> None:
    database.open()
    database.prepare()


def test_every_version_is_listed() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert [found.revision for found in script.walk_revisions()] == list(reversed(migrations.REVISIONS))


def test_sqlite_gets_the_tables(database: Database) -> None:
    with database.writer.begin() as connection:
        assert _difference(connection) == []
        assert migrations.revision_of(connection) == migrations.REVISIONS[-1]
        names = set(connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars())
        assert set(METADATA.tables) <= names
        indexes = set(connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'index'")).scalars())
    assert {"ix_event_ts_us", "ix_event_flagged_ts_us", "ix_event_group_id"} <= indexes


def test_postgresql_gets_the_tables(postgres: StoreConfig) -> None:
    database = a_database(postgres)
    database.prepare()
    with database.writer.begin() as connection:
        assert _difference(connection) == []
    database.close()


def test_a_second_start_changes_nothing(config: StoreConfig, database: Database) -> None:
    fill(database, [an_event(1)])
    before = everything(database)
    database.close()
    again = a_database(config)
    assert everything(again) == before
    assert again.notes == []
    again.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_newer_schema_is_refused_and_left_alone(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    config = a_config(tmp_path / "new") if kind == "sqlite" else request.getfixturevalue("postgres")
    database = a_database(config)
    database.prepare()
    with database.writer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0099'"))
        connection.execute(text("UPDATE meta SET number = 99 WHERE key = 'schema_version'"))
        if kind == "sqlite":
            connection.execute(text("PRAGMA user_version = 99"))
    database.close()
    again = Database(config)
    with pytest.raises(
        Incompatible, match=r"the schema '0099', and this perimetry knows 0001 to .*; it was made by a newer"
    ):
        _start(again)
    again.close()
    assert again.notes == []
    assert not list(config.folder.glob("*damaged*"))
