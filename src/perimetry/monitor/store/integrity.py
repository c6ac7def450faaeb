"""Whether an SQLite file may be trusted: where it lies, and whether it is whole. A damaged one is set aside, never mended."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from perimetry.errors import ConfigError, StorageError
from perimetry.monitor.store.migrations import SCHEMA, schema_hash

__all__ = ["damage", "is_damage", "network_mount", "refuse_network", "set_aside", "sets_aside"]

NETWORK: Final = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs"}
    | {"fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs"}
)
"""Kinds of file system on which the locks and the shared memory of SQLite cannot be trusted."""

NOT_DAMAGE: Final = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR}
    | {sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_NOLFS}
)
TAILS: Final = ("", "-wal", "-shm")
MOUNTS: Final = Path("/proc/self/mountinfo")


def network_mount(path: Path, mounts: str) -> str | None:
    """Kind of the network mount that `path` lies on, or None. `mounts`: as in `/proc/self/mountinfo`.

    >>> network_mount(Path("/data/events"), "1 2 0:3 / / rw - ext4 x rw\\n4 1 0:5 / /data rw shared:1 - nfs4 host:/x rw")
    'nfs4'
    """
    best, found = -1, None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")[0]
        if len(fields) < 5 or not kind:
            continue
        point = Path(fields[4].encode().decode("unicode_escape"))
        # Of two mounts at one place the later hides the earlier.
        if (point == path or point in path.parents) and len(point.parts) >= best:
            best, found = len(point.parts), kind
    return found if found in NETWORK else None


def refuse_network(path: Path, *, forced: bool) -> None:
    """Errors: `ConfigError` where `path` lies on a network mount and that is not forced."""
    if forced or not MOUNTS.exists():
        return
    kind = network_mount(path.absolute().resolve(), MOUNTS.read_text(encoding="utf-8", errors="replace"))
    if kind is not None:
        raise ConfigError(
            f"{path} lies on a network mount ({kind}), where SQLite loses data; name a folder of a local disk, or a PostgreSQL "
            "database as url, or set force_network = true"
        )


def is_damage(error: BaseException, path: Path) -> bool:
    """Whether this error of SQLite says that the file is no longer what was written, rather than that the disk refused."""
    if isinstance(error, UnicodeDecodeError):
        return True
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return "decode to UTF-8" in str(error)
    if code & 0xFF == sqlite3.SQLITE_READONLY:
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def damage(path: Path, *, full: bool) -> str | None:
    """What is wrong with an SQLite store, or None where it is whole, or empty still. `full`: indexes and references too.

    SQLite keeps no checksum of values: a flipped bit that leaves types, checks and order alone is not seen.
    Errors: `StorageError` where the disk refuses.
    """
    try:
        with closing(sqlite3.connect(path, timeout=5.0, isolation_level=None)) as connection:
            return next(_faults(connection, full), None)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code & 0xFF in NOT_DAMAGE or (code & 0xFF == sqlite3.SQLITE_READONLY and not is_damage(error, path)):
            raise StorageError(f"cannot open {path}: {error}; check the disk and its permissions") from error
        return str(error)


def _faults(connection: sqlite3.Connection, full: bool) -> Iterator[str]:
    connection.execute("PRAGMA cell_size_check = ON")
    said = connection.execute(f"PRAGMA {'integrity' if full else 'quick'}_check(1)").fetchone()[0]
    if said != "ok":
        yield said.splitlines()[0]
    if full and connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
        yield "a row belongs to an event that is not there"
    written = [row[0] for row in connection.execute(SCHEMA)]
    if not written:
        return
    named = [int(row[0]) for row in connection.execute("SELECT version_num FROM alembic_version")]
    kept = connection.execute("SELECT number FROM meta WHERE key = 'schema_version'").fetchall()
    sealed = connection.execute("SELECT value FROM meta WHERE key = 'schema_sha256'").fetchall()
    if not [row[0] for row in kept] == named == [connection.execute("PRAGMA user_version").fetchone()[0]]:
        yield "its versions do not agree"
    if [row[0] for row in sealed] != [schema_hash(written)]:
        yield "its tables are not those that were made"
    # A file whose head says that it must not be written to is noticed here, not by the first event.
    connection.execute("UPDATE meta SET number = number WHERE key = 'schema_version'")


def set_aside(path: Path, now_s: float) -> Path:
    """Rename a damaged store and its log, with the time in the name, and give the new name back.

    Errors: `StorageError` where the disk refuses.
    """
    stamp = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    target, turn = path.with_name(f"{path.name}.damaged-{stamp}"), 0
    while target.exists():
        turn += 1
        target = path.with_name(f"{path.name}.damaged-{stamp}-{turn}")
    try:
        for tail in TAILS:
            here = path.with_name(path.name + tail)
            if here.exists():
                here.rename(target.with_name(target.name + tail))
    except OSError as error:
        raise StorageError(f"cannot set {path} aside: {error.strerror or error}; check the folder") from error
    return target


def sets_aside(path: Path) -> Iterator[tuple[Path, float]]:
    """Everything that was set aside of `path`, logs included, and when, in seconds since 1970."""
    for found in sorted(path.parent.glob(f"{path.name}.damaged-*")):
        stamp = found.name.removeprefix(f"{path.name}.damaged-")[:16]
        try:
            when = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            continue
        yield found, when.timestamp()
