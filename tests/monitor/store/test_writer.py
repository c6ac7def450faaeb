"""The thread that writes: commits, losses with their reasons, and coming back when the disk does."""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError
from tests.monitor.store.makers import NOON, a_config, an_event, eventually

import perimetry.monitor.store.keeper as keeper
from perimetry.monitor.store.event_store import EventStore
from perimetry.monitor.store.events import Event, Stored
from perimetry.monitor.store.store_config import StoreConfig

Opened = Callable[..., EventStore]
FAST = {"retry_s": 0.05, "commit_rows": 16}


def _settled(store: EventStore, events: Sequence[Event]) -> list[str]:
    receipts = [store.submit(one, wait=True) for one in events]
    return [one.ack if one.done is None else one.done.result(60) for one in receipts]


def _ids(store: EventStore) -> list[str]:
    return [one.event.request_id for one in store.reader.page(limit=1_000).events]


def test_committed_events_are_there_once(opened: Opened, config: StoreConfig) -> None:
    store = opened(config)
    events = [an_event(i) for i in range(300)]
    assert set(_settled(store, [*events, *events[:50]])) == {"committed"}
    assert _ids(store) == [f"r{i}" for i in range(300)]
    assert store.state().written == 300
    assert store.state().trouble is None


def test_a_batch_is_one_transaction_of_so_many_rows(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    plain = keeper.insert_events

    def counted(connection: Connection, events: Sequence[Event]) -> list[Stored]:
        sizes.append(len(events))
        return plain(connection, events)

    monkeypatch.setattr(keeper, "insert_events", counted)
    store = opened(a_config(tmp_path, commit_rows=10, commit_ms=60_000.0))
    assert set(_settled(store, [an_event(i) for i in range(40)])) == {"committed"}
    assert sizes == [10, 10, 10, 10]


def test_the_last_events_are_written_when_it_closes(opened: Opened, tmp_path: Path) -> None:
    config = a_config(tmp_path, commit_ms=600_000.0)
    store = opened(config)
    for i in range(5):
        assert store.submit(an_event(i)).ack == "queued"
    assert store.close()
    assert store.submit(an_event(9)).ack == "dropped"
    assert _ids(opened(config)) == [f"r{i}" for i in range(5)]


def test_nobody_waits_while_the_writer_is_stuck(opened: Opened, tmp_path: Path) -> None:
    """The writer is held in a transaction; the queue takes what it can and the rest is counted, also after a restart."""
    config = a_config(tmp_path, queue_rows=100)
    store = opened(config)
    inside, go_on = threading.Event(), threading.Event()

    def stuck(connection: Connection) -> None:
        inside.set()
        assert go_on.wait(60)

    done = store._intake.change(stuck)
    assert inside.wait(60)
    acks = [store.submit(an_event(i)).ack for i in range(150)]
    assert acks == ["queued"] * 100 + ["dropped"] * 50
    assert store.state().queue == 100
    go_on.set()
    assert done.result(60) == "committed"
    eventually(lambda: not store.state().queue)
    assert _settled(store, [an_event(999)]) == ["committed"]
    assert store.state().dropped == {"queue-full": 50}
    store.close()
    again = opened(config)
    assert again.reader.drops() == {"queue-full": 50}
    assert again.reader.page(limit=1).dropped_total == 50
    assert len(_ids(again)) == 101


def test_events_that_the_database_will_never_take_do_not_hurt_others(
    opened: Opened, config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perimetry.monitor.store.intake.fault_of", lambda event: None)
    store = opened(config)
    events = [an_event(i, p_value=7.0) if i % 10 == 3 else an_event(i) for i in range(40)]
    acks = _settled(store, events)
    assert [i for i, ack in enumerate(acks) if ack == "dropped"] == [3, 13, 23, 33]
    assert acks.count("committed") == 36
    assert len(_ids(store)) == 36
    assert store.state().dropped == {"invalid": 4}
    eventually(lambda: store.reader.drops() == {"invalid": 4})


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Free bytes of the disk, as the store sees them."""
    found = [2**40]
    monkeypatch.setattr(keeper, "free_bytes", lambda path: found[0])
    return found


def test_a_disk_that_is_nearly_full_drops_and_comes_back(opened: Opened, tmp_path: Path, free: list[int]) -> None:
    store = opened(a_config(tmp_path, least_free_bytes=2**28, **FAST))
    assert _settled(store, [an_event(0)]) == ["committed"]
    free[0] = 2**28 - 1
    acks = _settled(store, [an_event(i) for i in range(1, 101)])
    assert set(acks) == {"dropped"}
    assert store.state().trouble == f"disk-full: {2**28 - 1} bytes are free and {2**28} are wanted"
    assert store.state().dropped == {"disk-full": 100}
    free[0] = 2**28
    eventually(lambda: store.state().trouble is None)
    assert _settled(store, [an_event(200)]) == ["committed"]
    assert _ids(store) == ["r0", "r200"]
    assert store.reader.drops() == {"disk-full": 100}


def test_a_database_that_may_not_grow_drops_and_comes_back(opened: Opened, tmp_path: Path) -> None:
    store = opened(a_config(tmp_path, **FAST))
    assert _settled(store, [an_event(i) for i in range(64)]) == ["committed"] * 64

    def limit(pages: int) -> None:
        done = store._intake.change(
            lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}") and None
        )
        assert done.result(60) == "committed"

    limit(1)  # SQLite makes of it the number of pages that are there
    acks = _settled(store, [an_event(i, summary=bytes(9_000)) for i in range(100, 132)])
    assert set(acks) == {"dropped"}
    assert (store.state().trouble or "disk-full: it is over").startswith("disk-full: ")
    assert store.state().dropped["disk-full"] == 32
    eventually(lambda: store.state().trouble is None)
    limit(2**30)
    assert _settled(store, [an_event(i, summary=bytes(9_000)) for i in range(200, 232)]) == ["committed"] * 32
    assert len(_ids(store)) == 96
    eventually(lambda: store.reader.drops() == {"disk-full": 32})
    assert store.state().notes == ()


def test_an_error_of_the_store_drops_and_comes_back(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(a_config(tmp_path, text="full", **FAST))
    broken = sqlite3.OperationalError("disk I/O error")
    broken.sqlite_errorcode = sqlite3.SQLITE_IOERR

    def refuse(connection: Connection, events: Sequence[Event]) -> list[Stored]:
        raise OperationalError("INSERT", {"text": "unspeakable"}, broken)

    with monkeypatch.context() as patched:
        patched.setattr(keeper, "insert_events", refuse)
        assert set(_settled(store, [an_event(i, text="unspeakable") for i in range(40)])) == {"dropped"}
        assert store.state().dropped == {"store-error": 40}
    eventually(lambda: _settled(store, [an_event(99, text="unspeakable")]) == ["committed"])
    eventually(lambda: store.state().trouble is None)
    assert "events are dropped: store-error: OperationalError: disk I/O error" in caplog.text
    assert "unspeakable" not in caplog.text
    assert store.state().notes == ()


def test_a_fault_of_our_own_ends_neither_the_thread_nor_secrecy(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(a_config(tmp_path, **FAST))

    def fail(connection: Connection, events: Sequence[Event]) -> list[Stored]:
        raise KeyError("unspeakable")

    with monkeypatch.context() as patched:
        patched.setattr(keeper, "insert_events", fail)
        assert _settled(store, [an_event(1)]) == ["dropped"]
    assert _settled(store, [an_event(2)]) == ["committed"]
    assert "the event writer met a KeyError" in caplog.text
    assert "unspeakable" not in caplog.text


def test_a_file_that_is_damaged_at_work_is_set_aside_and_the_batch_is_kept(opened: Opened, config: StoreConfig) -> None:
    store = opened(config)
    assert _settled(store, [an_event(i, summary=bytes(2_000)) for i in range(200)]) == ["committed"] * 200

    def spoil(connection: Connection) -> None:
        # The sums of the minute that the next event falls into.
        connection.exec_driver_sql("UPDATE rollup SET sketch = x'00'")

    assert store._intake.change(spoil).result(60) == "committed"
    assert _settled(store, [an_event(500)]) == ["committed"]
    assert _ids(store) == ["r500"]
    assert "the sums of minute" in store.state().notes[0]
    assert "it was set aside as events.sqlite.damaged-" in store.state().notes[0]
    assert len(list(config.folder.glob("events.sqlite.damaged-*"))) == 1
    assert store.state().trouble is None


def test_damage_that_the_full_check_finds_is_set_aside_beside_the_work(opened: Opened, tmp_path: Path) -> None:
    config = a_config(tmp_path, full_check_bytes=0)
    store = opened(config)
    assert _settled(store, [an_event(i) for i in range(50)]) == ["committed"] * 50
    store.close()
    with closing(sqlite3.connect(tmp_path / "events.sqlite")) as connection, connection:
        connection.execute("DELETE FROM event WHERE id = 7")  # the quick check does not look for what belongs to it
    again = opened(config)
    eventually(lambda: again.state().notes)
    assert "a row belongs to an event that is not there" in again.state().notes[0]
    eventually(lambda: _settled(again, [an_event(500)]) == ["committed"])
    assert _ids(again) == ["r500"]


def test_retention_runs_by_the_clock_it_was_given(opened: Opened, tmp_path: Path) -> None:
    now = [NOON / 1e6]
    store = opened(a_config(tmp_path, retain_every_s=0.02, text="full"), clock=lambda: now[0])
    assert _settled(store, [an_event(i, text="words") for i in range(3)]) == ["committed"] * 3
    assert [one.event.text for one in store.reader.page().events] == ["words"] * 3
    now[0] += 8 * 86_400
    eventually(lambda: [one.event.text for one in store.reader.page().events] == [None] * 3)
    now[0] += 30 * 86_400
    eventually(lambda: store.reader.page().events == [])
    assert _settled(store, [an_event(7, ts_us=int(now[0] * 1e6))]) == ["committed"]
    now[0] -= 3_600
    assert _settled(store, [an_event(8, ts_us=int(now[0] * 1e6))]) == ["committed"]
    assert [one.id for one in store.reader.page().events] == [4, 5]
