"""What goes with time: words, events, sums, fragments and files that were set aside, by age; the oldest events by size."""

import math
from pathlib import Path
from typing import Final, final

from sqlalchemy import Connection, Table, delete, func, select

from perimetry.monitor.store.database import Database
from perimetry.monitor.store.fragments import Fragments
from perimetry.monitor.store.integrity import sets_aside
from perimetry.monitor.store.tables import drift_window, event, event_text, rollup

__all__ = ["Retention"]

DAY_US: Final = 86_400_000_000


@final
class Retention:
    """Takes away what is too old or too much, in small transactions, between those of the thread that writes."""

    def __init__(self, database: Database, fragments: Fragments) -> None:
        """By the configuration of the database."""
        self._database, self._fragments = database, fragments

    def files(self, now_us: int) -> None:
        """Fragments and files that were set aside. Errors: `StorageError`."""
        config = self._database.config
        self._fragments.expire(now_us - int(config.retain_days * DAY_US), now_us)
        if self._database.path is not None:
            # What is in a damaged file is not known: it goes as the words do, which are kept the shortest.
            most_s = min(config.text_days, config.retain_days) * 86_400
            for path, when_s in sets_aside(self._database.path):
                if now_us / 1e6 - when_s > most_s:
                    Path(path).unlink(missing_ok=True)

    def step(self, now_us: int) -> bool:
        """One transaction; True where there is more to do. Errors: those of SQLAlchemy."""
        with self._database.writer.begin() as connection:
            more = self._old(connection, now_us) or self._much(connection)
        if not more:
            self.tidy()
        return more

    def _old(self, connection: Connection, now_us: int) -> bool:
        """Delete one portion of one kind; True where it was full."""
        config = self._database.config
        portion = config.retain_rows
        begin = now_us - int(config.retain_days * DAY_US)
        late = now_us - int(config.rollup_days * DAY_US)
        words = select(event_text.c.event_id).where(event_text.c.expires_us < now_us).limit(portion)
        events = select(event.c.id).where(event.c.ts_us < begin).order_by(event.c.ts_us).limit(portion)
        windows = select(drift_window.c.id).where(drift_window.c.ts_us < late).limit(portion)
        minutes = select(rollup.c.minute).where(rollup.c.minute < late // 60_000_000).order_by(rollup.c.minute)
        return any(
            [
                connection.execute(delete(event_text).where(event_text.c.event_id.in_(words))).rowcount >= portion,
                connection.execute(delete(event).where(event.c.id.in_(events))).rowcount >= portion,
                connection.execute(delete(drift_window).where(drift_window.c.id.in_(windows))).rowcount >= portion,
                connection.execute(delete(rollup).where(rollup.c.minute.in_(minutes.limit(portion)))).rowcount
                >= portion,
            ]
        )

    def _much(self, connection: Connection) -> bool:
        """Delete the oldest rows where the store is too large; True where it may be so still."""
        size, most = self._database.size(connection), self._database.config.retain_bytes
        if size <= most:
            return False
        for table, age in ((event, event.c.ts_us), (rollup, rollup.c.minute)):
            here = self._count(connection, table)
            if here:
                portion = min(self._database.config.retain_rows, math.ceil(here * (size - most) / size))
                border = select(age).order_by(age).limit(1).offset(portion - 1).scalar_subquery()
                if table is rollup:
                    connection.execute(delete(rollup).where(age <= border))
                else:
                    oldest = select(event.c.id).order_by(age, event.c.id).limit(portion)
                    connection.execute(delete(event).where(event.c.id.in_(oldest)))
                return True
        return False

    @staticmethod
    def _count(connection: Connection, table: Table) -> int:
        return int(connection.execute(select(func.count()).select_from(table)).scalar() or 0)

    def tidy(self) -> None:
        """Give freed pages of an SQLite file back and empty its log. PostgreSQL does that by itself (autovacuum)."""
        if self._database.path is None:
            return
        with self._database.writer.connect() as connection:
            raw = connection.connection.cursor()
            try:
                # Each step of the statement gives one page back, and only a script goes through all of them.
                raw.executescript("PRAGMA incremental_vacuum")
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                raw.close()
