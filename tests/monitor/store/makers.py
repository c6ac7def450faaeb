"""Events and stores for the tests of the event store. Imports nothing heavy: a child that is killed uses it too."""

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from perimetry.monitor.http.ids import Names
from perimetry.monitor.store.database import Database
from perimetry.monitor.store.events import ConceptSeen, Event
from perimetry.monitor.store.fragments import Fragments
from perimetry.monitor.store.inserting import insert_events
from perimetry.monitor.store.keeper import Keeper
from perimetry.monitor.store.reading import MOST, Reader
from perimetry.monitor.store.store_config import StoreConfig

NOON = 1_700_000_000_000_000
"""A time in microseconds since 1970."""


def uuid_at(ts_us: int) -> str:
    """A name as the service gives it at that time."""
    return Names(lambda: ts_us // 1_000).fresh()


def an_event(number: int = 0, **other: Any) -> Event:
    """An event that is told from others by its number; every field can be given."""
    ts_us = other.pop("ts_us", NOON + number)
    values: dict[str, Any] = {
        "uuid": uuid_at(ts_us),
        "ts_us": ts_us,
        "request_id": f"r{number}",
        "artifact_id": "a" * 64,
        "adapter": "score",
        "prompt_hmac": number.to_bytes(16),
        "n_chars": 11,
        "n_tokens": 3,
        "group_id": "short",
        "score": float(number),
        "p_value": 0.5,
        "flagged": False,
        "queue_us": 7,
        "forward_us": 9,
        "metadata": {"team": "blue"},
        "concepts": (ConceptSeen(5, 2.0, 3, 1), ConceptSeen(9, 1.0, 2, 0)),
    }
    return Event(**values | other)


def a_config(folder: Path, **other: Any) -> StoreConfig:
    """A store in this folder that commits soon."""
    return StoreConfig(folder=folder, **{"commit_ms": 2.0, "least_free_bytes": 0} | other)


def a_database(config: StoreConfig, clock: Callable[[], float] = time.time) -> Database:
    """One that is open."""
    found = Database(config, clock)
    found.open()
    return found


def a_keeper(database: Database) -> Keeper:
    """With fragments beside the database."""
    return Keeper(database, Fragments(database.config.folder / "fragments", database.config.fragment_bytes))


def fill(database: Database, events: Iterable[Event]) -> None:
    """Write events as they are."""
    with database.writer.begin() as connection:
        insert_events(connection, list(events))


def everything(database: Database) -> list[Event]:
    """All events that are there, in their order."""
    reader, found, since = Reader(database), [], 0
    while True:
        page = reader.page(since, limit=MOST)
        found += [one.event for one in page.events]
        if page.next is None:
            return found
        since = page.next


def eventually(true: Callable[[], object], within_s: float = 60.0) -> None:
    """Come back when it is true; fail where it does not become so."""
    pause, until = threading.Event(), time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until, "it did not become true in time"
        pause.wait(0.01)
