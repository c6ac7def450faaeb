"""How the databases are opened: as promised, for the owner alone, and with errors that repeat no prompt."""

import stat
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError
from tests.monitor.store.makers import a_config, a_database, an_event, everything, fill

import perimetry.monitor.store.integrity as integrity
from perimetry.errors import ConfigError, StorageError
from perimetry.monitor.store.database import Database
from perimetry.monitor.store.inserting import insert_events
from perimetry.monitor.store.store_config import StoreConfig


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_sqlite_is_set_up_as_promised(tmp_path: Path, synchronous: str) -> None:
    database = a_database(a_config(tmp_path / "new" / "store", synchronous=synchronous))
    wanted = {"journal_mode": "wal", "busy_timeout": 5000, "auto_vacuum": 2, "foreign_keys": 1, "secure_delete": 1}
    with database.writer.connect() as connection:
        found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in wanted}
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == {"NORMAL": 1, "FULL": 2}[synchronous]
    assert found == wanted
    fill(database, [an_event(1)])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new" / "store").iterdir()}
    assert set(modes.values()) == {0o600}
    assert "events.sqlite-wal" in modes
    database.close()


def test_a_network_mount_is_refused_unless_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"22 1 0:3 / / rw - ext4 x rw\n30 22 0:9 / {tmp_path}/far rw shared:1 - nfs4 host:/x rw\n")
    monkeypatch.setattr(integrity, "MOUNTS", mounts)
    far = a_config(tmp_path / "far" / "store")
    with pytest.raises(
        ConfigError, match=r"lies on a network mount \(nfs4\), where SQLite loses data; .*force_network"
    ):
        Database(far).open()
    assert not (tmp_path / "far").exists()
    a_database(a_config(tmp_path / "near")).close()
    a_database(far.model_copy(update={"force_network": True})).close()


def test_a_folder_that_cannot_be_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=r"cannot write .*; check the folder and its permissions"):
        Database(a_config(tmp_path / "file" / "store")).open()


def test_readers_cannot_write_and_a_closed_one_says_so(database: Database) -> None:
    with pytest.raises(SQLAlchemyError, match="readonly"), database.reader.begin() as connection:
        insert_events(connection, [an_event(1)])
    database.close()
    with pytest.raises(StorageError, match="closed; open it first"):
        database.reader  # noqa: B018


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_error_of_the_database_repeats_no_prompt(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    config: StoreConfig = a_config(tmp_path / "s") if kind == "sqlite" else request.getfixturevalue("postgres")
    database = a_database(config)
    database.prepare()
    bad = an_event(1, text="unspeakable", expires_us=1, metadata={"who": "unspeakable"}, p_value=7.0)
    with pytest.raises(SQLAlchemyError) as refused:
        fill(database, [bad])
    assert "unspeakable" not in str(refused.value).split("DETAIL")[0]
    assert everything(database) == []
    database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_size_is_that_of_what_is_kept(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    config: StoreConfig = a_config(tmp_path / "s") if kind == "sqlite" else request.getfixturevalue("postgres")
    database = a_database(config)
    database.prepare()
    sizes = []
    for start in (0, 1_000, 2_000):
        fill(database, [an_event(start + i, summary=bytes(500)) for i in range(1_000)])
        with database.writer.begin() as connection:
            sizes.append(database.size(connection))
    assert 1_000 * 600 < sizes[0] < 1_000 * 1_600
    assert sizes[2] - sizes[1] == pytest.approx(sizes[1] - sizes[0], rel=0.1)
    database.close()
