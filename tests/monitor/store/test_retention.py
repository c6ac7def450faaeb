"""Rows, words, sums, fragments and files that were set aside go in time; the size stays near its bound. By a clock of ours."""

from pathlib import Path

import pytest
from sqlalchemy import func, select
from tests.monitor.store.makers import NOON, a_config, a_database, an_event, everything, fill

from perimetry.monitor.store.database import Database
from perimetry.monitor.store.fragments import Fragments
from perimetry.monitor.store.integrity import set_aside
from perimetry.monitor.store.reading import Reader
from perimetry.monitor.store.retention import DAY_US, Retention
from perimetry.monitor.store.store_config import StoreConfig
from perimetry.monitor.store.tables import METADATA, drift_window

KINDS = ["sqlite", "postgresql"]


def _config(kind: str, request: pytest.FixtureRequest, folder: Path, **other: object) -> StoreConfig:
    plain = a_config(folder / "store") if kind == "sqlite" else request.getfixturevalue("postgres")
    return plain.model_copy(update={"database_timeout_s": 10.0} | other)


def _ready(config: StoreConfig) -> tuple[Database, Retention, Fragments]:
    database = a_database(config)
    database.prepare()
    fragments = Fragments(config.folder / "fragments", config.fragment_bytes)
    return database, Retention(database, fragments), fragments


def _steps(retention: Retention, now_us: int) -> int:
    retention.files(now_us)
    number = 1
    while retention.step(now_us):
        number += 1
    return number


def _rows(database: Database) -> dict[str, int]:
    with database.reader.begin() as connection:
        found = {
            name: connection.execute(select(func.count()).select_from(table)).scalar()
            for name, table in METADATA.tables.items()
        }
    return {name: int(n or 0) for name, n in found.items() if name not in ("meta", "artifact")}


def _old(days: float, number: int) -> int:
    return NOON - int(days * DAY_US) + number


@pytest.mark.parametrize("kind", KINDS)
def test_everything_goes_at_its_time(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    database, retention, _ = _ready(_config(kind, request, tmp_path))
    ages = [0.0, 6.9, 7.1, 29.9, 30.1, 364.0, 366.0]
    events = [
        an_event(i, ts_us=_old(age, i), text=f"words-{i}", expires_us=_old(age, i) + 7 * DAY_US)
        for i, age in enumerate(ages)
    ]
    fill(database, events)
    with database.writer.begin() as connection:
        rows = [{"ts_us": _old(age, 0), "artifact_id": "a", "n": 500, "results": "{}"} for age in (1, 366)]
        connection.execute(drift_window.insert(), rows)
    whole = {"event": 7, "event_concept": 14, "event_text": 7, "rollup": 7, "drift_window": 2}
    assert _rows(database) == whole
    assert _steps(retention, NOON) == 1
    assert _rows(database) == {"event": 4, "event_concept": 8, "event_text": 2, "rollup": 6, "drift_window": 1}
    assert [one.text for one in everything(database)] == ["words-0", "words-1", None, None]
    assert _steps(retention, NOON + 400 * DAY_US) == 1
    assert not any(_rows(database).values())
    database.close()


def test_one_transaction_takes_so_many_rows_and_leaves_the_numbers_ascending(tmp_path: Path) -> None:
    database, retention, _ = _ready(a_config(tmp_path, retain_rows=100))
    fill(database, [an_event(i, ts_us=_old(31, i)) for i in range(250)])
    left = []
    while retention.step(NOON):
        left.append(_rows(database)["event"])
    assert left == [150, 50]
    assert _rows(database)["event"] == 0
    fill(database, [an_event(300)])
    assert Reader(database).page().events[0].id == 251
    database.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_stays_within_five_per_cent_of_its_bound(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    most = 2 * 2**20
    database, retention, _ = _ready(_config(kind, request, tmp_path, retain_bytes=most, retain_rows=500))
    for start in range(0, 4_000, 500):
        fill(database, [an_event(start + i, ts_us=NOON + start + i, summary=bytes(700)) for i in range(500)])
    steps = _steps(retention, NOON + 10_000)
    with database.writer.begin() as connection:
        size = database.size(connection)
    assert 0.95 * most <= size <= 1.05 * most
    if database.path is not None:
        on_disk = sum(
            path.stat().st_size for path in database.path.parent.glob("events.sqlite*") if "shm" not in path.name
        )
        assert on_disk <= 1.05 * most
    left = [one.ts_us for one in everything(database)]
    assert left == list(range(NOON + 4_000 - len(left), NOON + 4_000))
    assert 1 < steps < 30
    assert sum(one.n for one in Reader(database).rollups(0, 2**40)) == 4_000
    database.close()


def test_where_no_event_is_left_the_oldest_sums_go(tmp_path: Path) -> None:
    most = 2**19
    database, retention, _ = _ready(a_config(tmp_path).model_copy(update={"retain_bytes": most}))
    for start in range(0, 6_000, 1_000):
        fill(database, [an_event(i, ts_us=NOON + i * 60_000_000, score=1.0 + i) for i in range(start, start + 1_000)])
    assert _steps(retention, NOON) > 1
    assert _rows(database)["event"] == 0
    minutes = [one.minute for one in Reader(database).rollups(0, 2**40)]
    assert 1_000 < len(minutes) < 6_000
    assert minutes[-1] == (NOON + 5_999 * 60_000_000) // 60_000_000
    assert database.path is not None
    assert database.path.stat().st_size <= 1.05 * most
    database.close()


def test_words_that_are_gone_are_in_no_byte_of_the_folder(tmp_path: Path) -> None:
    database, retention, fragments = _ready(a_config(tmp_path / "store"))
    events = [an_event(i, text=f"unspeakable {i} " * 50, expires_us=NOON + 1) for i in range(300)]
    fill(database, events[:200])
    fragments.append(events[200:])
    assert _found(tmp_path, b"unspeakable")
    _steps(retention, NOON + 2)
    assert not _found(tmp_path, b"unspeakable")
    assert len(everything(database)) == 200
    assert len(fragments.read(fragments.files()[0]).events) == 100
    database.close()


def _found(folder: Path, what: bytes) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and what in path.read_bytes()]


def test_files_that_were_set_aside_go_when_words_do(tmp_path: Path) -> None:
    database, retention, _ = _ready(a_config(tmp_path))
    for name in ("events.sqlite.damaged-by-hand", "other.sqlite.damaged-20200101T000000Z"):
        (tmp_path / name).write_text("not ours")
    assert database.path is not None
    database.close()
    aside = set_aside(database.path, NOON / 1e6)
    again, retention, _ = _ready(a_config(tmp_path))
    retention.files(NOON + 6 * DAY_US)
    assert aside.exists()
    retention.files(NOON + 8 * DAY_US)
    assert not aside.exists()
    assert len(list(tmp_path.glob("*damaged*"))) == 2
    again.close()
