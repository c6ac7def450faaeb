"""The database behind the events: one connection that writes, a few that read."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, final

from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy import event as events
from sqlalchemy.exc import ArgumentError

from perimetry.errors import ConfigError, StorageError
from perimetry.monitor.store.integrity import damage, refuse_network, set_aside
from perimetry.monitor.store.migrations import migrate
from perimetry.monitor.store.postgres import postgres_engine
from perimetry.monitor.store.store_config import StoreConfig

__all__ = ["Database", "database_url"]

FILE = "events.sqlite"
READERS = 4
_BY_AGE = (("event", "id"), ("event_concept", "event_id"), ("event_text", "event_id"), ("rollup", "minute"))
_LIVE = (
    "SELECT (SELECT count(*) FROM {0}) * (SELECT coalesce(avg(pg_column_size(t.*) + 4), 0) "
    "FROM (SELECT * FROM {0} ORDER BY {1} DESC LIMIT 1000) t)"
)
_log = logging.getLogger(__name__)


class _Engines(NamedTuple):
    writer: Engine
    reader: Engine


def database_url(config: StoreConfig) -> URL:
    """Where the events are. Errors: `ConfigError` for an address of another kind; it does not repeat it (a password)."""
    if config.url is None:
        return URL.create("sqlite", database=str(config.folder / FILE))
    try:
        found = make_url(config.url)
    except ArgumentError:
        found = None
    drivers = {"sqlite": "sqlite", "sqlite+pysqlite": "sqlite", "postgresql+psycopg": "postgresql+psycopg"}
    name = found.drivername if found is not None else "nothing"
    if found is None or name not in drivers or (name.startswith("sqlite") and found.database in (None, "", ":memory:")):
        raise ConfigError(
            f"the url of the event store begins with {name!r} or names no database; wanted sqlite:///FILE or "
            "postgresql+psycopg://USER@HOST/NAME"
        )
    return found.set(drivername=drivers[name])


def _sqlite_engine(path: Path, synchronous: str, *, write: bool) -> Engine:
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        pool_size=1 if write else READERS,
        max_overflow=0,
        hide_parameters=True,  # an error must not repeat a prompt
        connect_args={"timeout": 5.0},
    )

    def prepare(connection: Any, _record: Any) -> None:
        # Transactions begin below, by one rule: a writer takes its lock at once, not in the middle.
        connection.isolation_level = None
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        # Auto-vacuum counts only while the file is empty, and the mode of the journal ends that.
        for name, value in (
            ("busy_timeout", "5000"),
            *((("auto_vacuum", "INCREMENTAL"), ("journal_mode", "WAL"), ("secure_delete", "ON")) if write else ()),
            *((("journal_size_limit", str(64 * 2**20)),) if write else (("query_only", "ON"),)),
            ("synchronous", synchronous),
            ("foreign_keys", "ON"),
            ("cell_size_check", "ON"),
        ):
            connection.execute(f"PRAGMA {name} = {value}")

    events.listen(engine, "connect", prepare)
    begin = "BEGIN IMMEDIATE" if write else "BEGIN"
    events.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin) and None)
    return engine


@final
class Database:
    """Engines of one database. Only one thread uses `writer`."""

    def __init__(self, config: StoreConfig, clock: Callable[[], float] = time.time) -> None:
        """Nothing is opened yet. Errors: `ConfigError` for an address of another kind."""
        self.config = config
        self.url = database_url(config)
        self.path = Path(self.url.database or "") if self.url.drivername == "sqlite" else None
        self.notes: list[str] = []
        self._clock = clock
        self._engines: _Engines | None = None
        self._prepared = False

    @property
    def writer(self) -> Engine:
        """The one connection that writes."""
        return self._opened().writer

    @property
    def reader(self) -> Engine:
        """Connections that only read."""
        return self._opened().reader

    def _opened(self) -> _Engines:
        if self._engines is None:
            raise StorageError("the event store is closed; open it first")
        return self._engines

    def open(self) -> None:
        """Check an SQLite file, set it aside where it is damaged, and make the engines.

        PostgreSQL is not asked yet: `prepare` does that, and again as often as it takes. Errors: `ConfigError` (a network
        mount), `Incompatible` (made by a newer perimetry), `StorageError` (the disk refuses), `UsageError` (no psycopg).
        """
        if self.path is None:
            wait = self.config.database_timeout_s
            self._engines = _Engines(postgres_engine(self.url, wait, 1), postgres_engine(self.url, wait, READERS))
            return
        refuse_network(self.path, forced=self.config.force_network)
        if self.path.exists():
            small = self.path.stat().st_size <= self.config.full_check_bytes
            why = damage(self.path, full=small)
            if why is not None:
                self._set_aside(why)
        self._open_sqlite(self.path)
        self.prepare()

    def _open_sqlite(self, path: Path) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise StorageError(
                f"cannot write {path}: {error.strerror or error}; check the folder and its permissions"
            ) from error
        how = self.config.synchronous
        self._engines = _Engines(_sqlite_engine(path, how, write=True), _sqlite_engine(path, how, write=False))

    def _set_aside(self, why: str) -> None:
        if self.path is not None:
            aside = set_aside(self.path, self._clock())
            self.notes.append(
                f"the event store was damaged ({why}); it was set aside as {aside.name} and a new one was made"
            )
            _log.error("event store damaged (%s); set aside as %s", why, aside.name)

    def prepare(self) -> None:
        """Bring the tables to the newest version, once. Errors: `Incompatible`, and those of SQLAlchemy."""
        if not self._prepared:
            with self.writer.begin() as connection:
                migrate(connection)
            self._prepared = True

    def renew(self, why: str) -> None:
        """Set a damaged SQLite file aside and go on with a new one. Called by the thread that writes."""
        if self.path is None:
            return
        self.close()
        self._set_aside(why)
        self._open_sqlite(self.path)
        self.prepare()

    def size(self, connection: Connection) -> int:
        """Bytes of what is kept: pages in use for SQLite; for PostgreSQL live rows times the mean of the newest thousand."""
        if self.path is not None:
            pages, free, size = (
                int(connection.exec_driver_sql(f"PRAGMA {name}").scalar() or 0)
                for name in ("page_count", "freelist_count", "page_size")
            )
            return (pages - free) * size
        return sum(int(connection.execute(text(_LIVE.format(*names))).scalar() or 0) for names in _BY_AGE)

    def close(self) -> None:
        """Close what is open; the log of SQLite goes into its file."""
        if self._engines is not None:
            self._engines.reader.dispose()
            self._engines.writer.dispose()
        self._engines, self._prepared = None, False
