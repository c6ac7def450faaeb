"""What becomes of a batch of events: into the database, or beside it, or refused with a reason. One thread uses it."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, final

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from perimetry.errors import CorruptArtifact, PerimetryError, StorageError, StorageFull
from perimetry.monitor.store.database import Database
from perimetry.monitor.store.events import Event, Stored
from perimetry.monitor.store.fragments import Fragments
from perimetry.monitor.store.inserting import add_to_counters, insert_events
from perimetry.monitor.store.integrity import is_damage
from perimetry.storage import free_bytes

__all__ = ["DropReason", "Keeper", "Kept", "Refused", "Ticked"]

DropReason = Literal["queue-full", "disk-full", "store-error", "fragments-full", "invalid", "closed"]
"""Why an event was lost: too many waited; the disk was full; the database refused; it was down for too long; the event was not
whole; the store was closed."""

FIRST_WAIT_S: Final = 1.0
SQLITE_FULL: Final = 13
_log = logging.getLogger(__name__)


class Refused(Exception):
    """Nothing can be written now."""

    def __init__(self, reason: DropReason, detail: str) -> None:
        """`detail` goes into logs and the readiness note; it holds nothing of an event."""
        super().__init__(f"{reason}: {detail}")
        self.reason: DropReason = reason
        self.detail = detail


class Kept(NamedTuple):
    """What has become of a batch."""

    stored: list[Stored]
    """Events that are in the database now and were not before."""
    committed: bool
    """True: all are in the database. False: all are in fragments, and the counters were not written."""
    invalid: frozenset[str] = frozenset()
    """Uuids of events that the database will never take."""


class Ticked(NamedTuple):
    """What a tick has brought."""

    stored: list[Stored]
    """Events out of fragments that are in the database now."""
    invalid: int
    """Lines of fragments that were cut off, damaged or refused."""


def _said(error: BaseException) -> str:
    """What the database said, in one line, without statement and values."""
    plain = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = str(plain).strip().splitlines()
    return f"{type(plain).__name__}: {lines[0] if lines else ''}"


@final
class Keeper:
    """Writes batches and knows whether it can."""

    def __init__(
        self, database: Database, fragments: Fragments, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`database`: opened. One in PostgreSQL counts as down until `tick` has reached it."""
        self.database, self.fragments = database, fragments
        self.down = "not reached yet" if database.path is None else None
        """Why PostgreSQL cannot be reached; None where it can, and for SQLite."""
        self._monotonic = monotonic
        self._wait_s, self._again_at = FIRST_WAIT_S, monotonic()

    def write(self, events: Sequence[Event], drops: Mapping[str, int]) -> Kept:
        """Write a batch and the counters. Errors: `Refused`; nothing of the batch is kept then."""
        if self.down is not None:
            return self._aside(events)
        self._room()
        try:
            return Kept(self._once(events, drops), committed=True)
        except (DataError, IntegrityError):
            return self._singly(events, drops)
        except (SQLAlchemyError, PerimetryError, OSError) as error:
            self.cope(error)
        if self.down is not None:
            return self._aside(events)
        try:
            return Kept(self._once(events, drops), committed=True)
        except (SQLAlchemyError, PerimetryError, OSError) as again:
            raise Refused("store-error", _said(again)) from again

    def _once(self, events: Sequence[Event], drops: Mapping[str, int]) -> list[Stored]:
        with self.database.writer.begin() as connection:
            stored = insert_events(connection, events)
            add_to_counters(connection, drops)
        return stored

    def _singly(self, events: Sequence[Event], drops: Mapping[str, int]) -> Kept:
        """One of them is not as it should be: write the others."""
        stored: list[Stored] = []
        invalid: set[str] = set()
        try:
            self._once([], drops)
            for one in events:
                try:
                    stored += self._once([one], {})
                except (DataError, IntegrityError):
                    invalid.add(one.uuid)
        except (SQLAlchemyError, PerimetryError, OSError) as error:
            self.cope(error)
            if self.down is None:
                raise Refused("store-error", _said(error)) from error
            # Those that are in the database already are known there by their uuids.
            self._aside([one for one in events if one.uuid not in invalid])
            return Kept(stored, committed=False, invalid=frozenset(invalid))
        return Kept(stored, committed=True, invalid=frozenset(invalid))

    def cope(self, error: Exception) -> None:
        """After an error: PostgreSQL counts as down, a damaged SQLite file is set aside. Errors: `Refused` for any other."""
        if self.database.path is None:
            self._lost(error)
            return
        refused = self._reason(error)
        if refused is not None:
            raise refused from error
        self.renew(_said(error))

    def renew(self, why: str) -> None:
        """Set a damaged SQLite file aside and make a new one. Errors: `Refused`."""
        try:
            self.database.renew(why)
        except (SQLAlchemyError, PerimetryError, OSError) as error:
            raise Refused("store-error", _said(error)) from error

    def _reason(self, error: Exception) -> Refused | None:
        """Why it was refused; None where the file is damaged."""
        plain = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        path = self.database.path
        if isinstance(error, CorruptArtifact) or (path is not None and is_damage(plain, path)):
            return None
        full = isinstance(error, StorageFull) or getattr(plain, "sqlite_errorcode", 0) & 0xFF == SQLITE_FULL
        return Refused("disk-full" if full else "store-error", _said(error))

    def _room(self) -> None:
        """Errors: `Refused` where the disk is nearly full."""
        path, least = self.database.path, self.database.config.least_free_bytes
        folder = self.fragments.folder if path is None else path.parent
        free = free_bytes(folder)
        if free < least and (path is not None or self.down is not None):
            raise Refused("disk-full", f"{free} bytes are free and {least} are wanted")

    def _aside(self, events: Sequence[Event]) -> Kept:
        self._room()
        try:
            self.fragments.append(events)
        except StorageError as error:
            raise Refused("fragments-full", str(error)) from error
        return Kept([], committed=False)

    def _lost(self, error: Exception) -> None:
        """PostgreSQL does not answer: events go to fragments, and it is tried again after a while."""
        self.down = _said(error)
        self._again_at = self._monotonic() + self._wait_s
        self._wait_s = min(2 * self._wait_s, self.database.config.retry_s)
        _log.warning("event store down (%s); events go to fragments", self.down)

    def change(self, what: Callable[[Connection], None]) -> None:
        """Write something that is no event. Errors: `Refused`."""
        if self.down is not None:
            raise Refused("store-error", self.down)
        self._room()
        try:
            with self.database.writer.begin() as connection:
                what(connection)
        except (SQLAlchemyError, PerimetryError, OSError) as error:
            self.cope(error)
            raise Refused("store-error", _said(error)) from error

    def reach(self) -> None:
        """Try PostgreSQL for the first time; it may be down. Errors: `Incompatible` (made by a newer perimetry)."""
        if self.database.path is None:
            try:
                self._connect()
            except (SQLAlchemyError, OSError) as error:
                self._lost(error)

    def _connect(self) -> None:
        self.database.prepare()
        with self.database.writer.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
        self.down, self._wait_s = None, FIRST_WAIT_S

    def tick(self) -> Ticked:
        """Try a PostgreSQL that was down, and import one fragment into one that is up. Errors: `Refused`."""
        if self.database.path is not None or (self.down is not None and self._monotonic() < self._again_at):
            return Ticked([], 0)
        try:
            if self.down is not None:
                self._connect()
            return self._import()
        except (SQLAlchemyError, PerimetryError, OSError) as error:
            self._lost(error)
            return Ticked([], 0)

    def _import(self) -> Ticked:
        files = self.fragments.files()
        if not files:
            return Ticked([], 0)
        found, stored, lost = self.fragments.read(files[0]), [], 0
        portion = self.database.config.commit_rows
        for start in range(0, len(found.events), portion):
            events = found.events[start : start + portion]
            try:
                stored += self._once(events, {})
            except (DataError, IntegrityError):
                kept = self._singly(events, {})
                stored, lost = stored + kept.stored, lost + len(kept.invalid)
            except (SQLAlchemyError, PerimetryError, OSError) as error:
                self._lost(error)
                return Ticked(stored, 0)
        self.fragments.remove(files[0])
        return Ticked(stored, found.skipped + lost)

    def wait_s(self) -> float | None:
        """Seconds until `tick` has something to do; None where it has nothing."""
        if self.down is not None:
            return max(0.0, self._again_at - self._monotonic())
        return 0.0 if self.database.path is None and self.fragments.files() else None
