"""The event store as the service holds it: opened once, written to without waiting, read in pages and as it grows."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple, final

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from perimetry.errors import StorageError
from perimetry.monitor.store.database import Database
from perimetry.monitor.store.events import Event, Stored
from perimetry.monitor.store.fragments import Fragments
from perimetry.monitor.store.hashing import install_key, prompt_hmac
from perimetry.monitor.store.inserting import put_meta
from perimetry.monitor.store.intake import Intake, Receipt
from perimetry.monitor.store.integrity import damage
from perimetry.monitor.store.keeper import Keeper
from perimetry.monitor.store.reading import MOST, Reader
from perimetry.monitor.store.retention import Retention
from perimetry.monitor.store.store_config import Ack, StoreConfig
from perimetry.monitor.store.tables import artifact, drift_window
from perimetry.monitor.store.tail import Gap, Tail
from perimetry.monitor.store.writer import Writer
from perimetry.storage import lock

__all__ = ["EventStore", "StoreState"]

FRAGMENTS = "fragments"
KEY = "hash.key"


class StoreState(NamedTuple):
    """How the store is."""

    trouble: str | None
    """Why nothing can be written at the moment; None where all is well."""
    notes: tuple[str, ...]
    """What happened that an operator should know, such as a damaged file that was set aside."""
    written: int
    """Events written since the start."""
    dropped: Mapping[str, int]
    """Events lost since the start, by reason."""
    queue: int
    """Events that wait."""
    file_bytes: int
    """Bytes on this disk: the SQLite file with its log, and fragments."""


@final
class EventStore:
    """Keeps events. `open` begins and `close` ends it."""

    def __init__(self, config: StoreConfig, clock: Callable[[], float] = time.time) -> None:
        """Nothing is opened yet. Errors: `ConfigError` for an address that names no database."""
        self.config = config
        self._database = Database(config, clock)
        self._fragments = Fragments(config.folder / FRAGMENTS, config.fragment_bytes)
        self._keeper = Keeper(self._database, self._fragments)
        self._intake = Intake(config)
        self._retention = Retention(self._database, self._fragments)
        self._tail = Tail()
        self._writer = Writer(self._intake, self._keeper, self._retention, self._tail, clock=clock)
        self._held = contextlib.ExitStack()
        self._key = b""
        self.reader = Reader(self._database)
        """Pages and sums; each call asks the database, so call it from a worker thread."""

    def open(self) -> "EventStore":
        """Lock the folder, check and prepare the database, and begin to write.

        Errors: `Locked` (another process owns the folder), `ConfigError` (a network mount, a key that others can read),
        `Incompatible` (made by a newer perimetry), `StorageError`, `UsageError` (psycopg is not installed).
        """
        with contextlib.ExitStack() as held:
            held.enter_context(lock(self.config.folder))
            self._key = install_key(self.config.key_file or self.config.folder / KEY)
            self._database.open()
            held.callback(self._database.close)
            self._keeper.reach()
            self._held = held.pop_all()
        self._writer.start()
        path = self._database.path
        if path is not None and path.stat().st_size > self.config.full_check_bytes:
            threading.Thread(target=self._check, name="perimetry-events-check", daemon=True).start()
        return self

    def _check(self) -> None:
        """The full check of a large file, beside the work."""
        path = self._database.path
        with contextlib.suppress(StorageError):
            why = None if path is None else damage(path, full=True)
            if why is not None:
                self._writer.renew(why)

    def close(self, timeout_s: float = 10.0) -> bool:
        """Write what waits and close; False where that took longer than `timeout_s`, so that something may be lost."""
        done = self._writer.stop(timeout_s)
        self._held.close()
        return done

    def hmac(self, messages: Sequence[tuple[str, str]]) -> bytes:
        """The name of a prompt, for `Event.prompt_hmac`: 16 bytes of a keyed hash."""
        return prompt_hmac(self._key, messages)

    def submit(self, event: Event, *, wait: bool = False) -> Receipt:
        """Hand an event in from any thread; never waits. With `wait` its receipt says later what has become of it."""
        return self._intake.submit(event, wait=wait)

    async def put(self, event: Event) -> Ack:
        """Hand an event in; where the configuration says `commit`, come back when it is committed. The loop goes on meanwhile.

        `queued`: it waits, or, where a database is down, lies in a synced fragment. `committed`: it is in the database.
        `dropped`: it is lost and counted.
        """
        receipt = self._intake.submit(event, wait=self.config.ack == "commit")
        if receipt.done is None:
            return receipt.ack
        try:
            return await asyncio.wait_for(asyncio.wrap_future(receipt.done), self.config.ack_timeout_ms / 1e3)
        except TimeoutError:
            return "queued"

    async def remember(self, key: str, value: Any) -> Ack:
        """Keep a JSON value under a key, in the place of the one before: `committed` or `dropped`."""
        return await self._change(lambda connection: put_meta(connection, key, value))

    async def record_artifact(self, name: str, ts_us: int, hashes: Mapping[str, str]) -> Ack:
        """Keep what an artifact is made of; the first record of a name stays."""
        row = {"id": name, "ts_us": ts_us, "hashes": json.dumps(dict(hashes), sort_keys=True)}

        def insert(connection: Connection) -> None:
            kind = postgresql if connection.dialect.name == "postgresql" else sqlite
            connection.execute(kind.insert(artifact).values(row).on_conflict_do_nothing())

        return await self._change(insert)

    async def record_drift(self, ts_us: int, artifact_id: str, n: int, results: Mapping[str, Any]) -> Ack:
        """Keep what the tests of one window said."""
        written = json.dumps(dict(results), allow_nan=False, sort_keys=True)
        row = {"ts_us": ts_us, "artifact_id": artifact_id, "n": n, "results": written}
        return await self._change(lambda connection: connection.execute(drift_window.insert(), row) and None)

    async def _change(self, what: Callable[[Connection], None]) -> Ack:
        return await asyncio.wrap_future(self._intake.change(what))

    async def follow(self, since: int | None = None) -> AsyncIterator[Stored | Gap]:
        """Events as they are committed here, without end. With `since` those after it come first, the last 1,000 at most.

        A `Gap` stands where events were left out: before the replay, or because the listener fell 256 behind.
        """
        with self._tail.subscribe() as live:
            seen = 0
            for found in [] if since is None else await asyncio.to_thread(self._replay, since):
                seen = found.id if isinstance(found, Stored) else seen
                yield found
            while True:
                found = await live.get()
                if isinstance(found, Gap) or found.id > seen:
                    yield found

    def _replay(self, since: int) -> list[Stored | Gap]:
        missed = self.reader.count(since) - MOST
        found: list[Stored | Gap] = []
        if missed > 0:
            found, since = [Gap(missed)], self.reader.nth_from_end(MOST)
        return [*found, *self.reader.page(since, limit=MOST).events]

    @property
    def listeners(self) -> int:
        """How many follow."""
        return len(self._tail)

    def state(self) -> StoreState:
        """How the store is; cheap, asks no database."""
        path = self._database.path
        files = [] if path is None else [path, path.with_name(path.name + "-wal")]
        size = self._fragments.size()
        for file in files:
            with contextlib.suppress(OSError):
                size += file.stat().st_size
        return StoreState(
            self._writer.trouble,
            tuple(self._database.notes),
            self._writer.written,
            self._intake.dropped(),
            len(self._intake),
            size,
        )
