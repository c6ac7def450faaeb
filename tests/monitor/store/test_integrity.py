"""Damage is found, set aside and told; what is whole, or merely refused by the disk, is left where it is."""

import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.monitor.store.makers import NOON, a_config, a_database, an_event, everything, fill

import perimetry.monitor.store.integrity as integrity
from perimetry.errors import StorageError
from perimetry.monitor.store.events import Event
from perimetry.monitor.store.integrity import damage, network_mount, set_aside, sets_aside
from perimetry.monitor.store.store_config import StoreConfig

EVENTS = [an_event(i, summary=bytes([i % 256]) * 40, text=f"words {i}", expires_us=2**60) for i in range(400)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 400 events, closed."""
    folder = tmp_path_factory.mktemp("whole")
    database = a_database(a_config(folder))
    for start in range(0, 400, 50):
        fill(database, EVENTS[start : start + 50])
    database.close()
    return folder / "events.sqlite"


def _copy(whole: Path, folder: Path) -> Path:
    folder.mkdir()
    return Path(shutil.copy(whole, folder))


def _flip(path: Path, draw: random.Random, begin: int, end: int, number: int) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(number):
        data[draw.randrange(begin, min(end, len(data)))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def _alike(found: Event, wanted: Event) -> bool:
    """How many fields two events share: a flip in one value leaves all others."""
    return sum(a == b for a, b in zip(found, wanted, strict=True)) >= len(wanted) - 2


def _opens(config: StoreConfig) -> bool:
    """Open it, use it, and say whether it was set aside; what is then there is whole."""
    database = a_database(config)
    aside = list(config.folder.glob("events.sqlite.damaged-*"))
    found = everything(database)
    if aside:
        assert found == []
        assert "was damaged" in database.notes[0]
        assert aside[0].name in database.notes[0]
    else:
        assert database.notes == []
        assert len(found) == len(EVENTS)
        assert all(_alike(one, wanted) for one, wanted in zip(found, EVENTS, strict=True))
    fill(database, [an_event(9_999, ts_us=NOON + 3_600_000_000)])
    assert len(everything(database)) == len(found) + 1
    database.close()
    assert damage(config.folder / "events.sqlite", full=True) is None
    return bool(aside)


@pytest.mark.parametrize("seed", range(50))
def test_flipped_bytes_are_set_aside_or_do_no_harm(seed: int, whole: Path, tmp_path: Path) -> None:
    """A fifth of the copies has one flip in the head, the others one to eight anywhere."""
    draw = random.Random(seed)
    copy = _copy(whole, tmp_path / "store")
    _flip(copy, draw, 0, 100 if seed % 5 == 0 else 2**40, 1 if seed % 5 == 0 else draw.randint(1, 8))
    _opens(a_config(tmp_path / "store"))


@pytest.mark.parametrize("seed", range(4))
def test_a_page_of_noise_or_a_cut_is_always_set_aside(seed: int, whole: Path, tmp_path: Path) -> None:
    copy = _copy(whole, tmp_path / "store")
    data = bytearray(copy.read_bytes())
    if seed < 2:
        start = 4096 * random.Random(seed).randrange(1, len(data) // 4096)
        data[start : start + 4096] = random.Random(seed).randbytes(4096)
    else:
        data = data[: len(data) // seed // 4096 * 4096]
    copy.write_bytes(data)
    assert _opens(a_config(tmp_path / "store"))


def test_what_is_whole_is_not_set_aside(whole: Path, tmp_path: Path) -> None:
    _copy(whole, tmp_path / "store")
    assert not _opens(a_config(tmp_path / "store"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("UPDATE alembic_version SET version_num = '0002'", "versions do not agree"),
        ("DELETE FROM alembic_version", "versions do not agree"),
        ("PRAGMA user_version = 7", "versions do not agree"),
        ("DELETE FROM meta", "versions do not agree"),
        ("ALTER TABLE event RENAME TO evens", "tables are not those"),
        ("DROP INDEX ix_event_ts_us", "tables are not those"),
        ("DROP TABLE meta", "no such table"),
        ("DELETE FROM event WHERE id = 3", "belongs to an event that is not there"),
    ],
)
def test_each_disagreement_is_seen(spoil: str, says: str, whole: Path, tmp_path: Path) -> None:
    copy = _copy(whole, tmp_path / "store")
    assert damage(copy, full=True) is None
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute(spoil)
    assert says in (damage(copy, full=True) or "")


def test_no_database_at_all_is_set_aside_and_an_empty_file_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "events.sqlite").touch()
    a_database(a_config(folder)).close()
    assert not list(sets_aside(folder / "events.sqlite"))
    (folder / "events.sqlite").write_text("dear diary, " * 2_000)
    database = a_database(a_config(folder), lambda: NOON / 1e6)
    ((aside, when),) = sets_aside(folder / "events.sqlite")
    assert aside.name == "events.sqlite.damaged-20231114T221320Z"
    assert when == NOON / 1e6
    assert aside.read_text().startswith("dear diary")
    assert database.notes == [
        f"the event store was damaged (file is not a database); it was set aside as {aside.name} and a new one was made"
    ]
    database.close()


def test_the_log_goes_with_its_file_and_no_name_is_taken_twice(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    for turn in range(2):
        for tail in ("", "-wal", "-shm"):
            path.with_name(f"e.db{tail}").write_text(f"{turn}{tail}")
        aside = set_aside(path, NOON / 1e6)
        assert aside.read_text() == str(turn)
        assert aside.with_name(aside.name + "-wal").read_text() == f"{turn}-wal"
    assert len(list(sets_aside(path))) == 6
    assert not path.exists()


def test_a_disk_that_refuses_is_no_damage(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = _copy(whole, tmp_path / "store")
    with closing(sqlite3.connect(copy, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(integrity.sqlite3, "connect", lambda path, **_: sqlite3.Connection(path, timeout=0.0))
        with pytest.raises(StorageError, match=r"cannot open .*locked; check the disk"):
            damage(copy, full=True)
    monkeypatch.undo()
    with pytest.raises(StorageError, match="unable to open"):
        damage(tmp_path / "none" / "events.sqlite", full=True)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert not integrity.is_damage(_error(sqlite3.SQLITE_READONLY), copy)
    monkeypatch.undo()
    assert integrity.is_damage(_error(sqlite3.SQLITE_READONLY), copy)
    assert integrity.is_damage(_error(sqlite3.SQLITE_CORRUPT), copy)
    assert not integrity.is_damage(_error(sqlite3.SQLITE_FULL), copy)
    assert not integrity.is_damage(ValueError("x"), copy)


def _error(code: int) -> sqlite3.OperationalError:
    found = sqlite3.OperationalError("x")
    found.sqlite_errorcode = code
    return found


WHERE = {"/": None, "/data": "nfs4", "/data/deep/er": "nfs4", "/data/local/x": None, "/database": None}


@pytest.mark.parametrize(("path", "kind"), [*WHERE.items(), ("/with space/x", "cifs"), ("/twice", None)])
def test_mounts(path: str, kind: str | None) -> None:
    mounts = "\n".join(
        [
            "22 1 8:1 / / rw,relatime - ext4 /dev/sda rw",
            "30 22 0:9 / /data rw shared:1 - nfs4 host:/x rw",
            "31 30 8:2 / /data/local rw - xfs /dev/sdb rw",
            "32 22 0:10 / /with\\040space rw - cifs //h/s rw",
            "33 22 0:11 / /twice rw - nfs host:/y rw",
            "34 22 8:3 / /twice rw - ext4 /dev/sdc rw",
            "a line of nonsense",
        ]
    )
    assert network_mount(Path(path), mounts) == kind
