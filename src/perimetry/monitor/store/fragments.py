"""Events on the disk while PostgreSQL is down: one line each, synced, in files that are imported once it is back.

Only the thread that writes uses them. A file has a random name and is never continued by another process; a last line that a
dying process has cut off was never acknowledged, and is left out.
"""

import contextlib
import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, final

from perimetry.errors import StorageError, StorageFull
from perimetry.monitor.store.events import Event, event_of_json, json_of_event
from perimetry.storage import TEMPORARY, remove_stale, write_bytes

__all__ = ["Fragment", "Fragments"]

FILE_BYTES: Final = 2**20
SUFFIX: Final = ".jsonl"
NEVER: Final = 2**63


class Fragment(NamedTuple):
    """What is in one file."""

    events: list[Event]
    """In the order in which they came."""
    skipped: int
    """Lines that are cut off or damaged."""


def _lines(events: Sequence[Event]) -> bytes:
    return "".join(json.dumps(json_of_event(one), allow_nan=False) + "\n" for one in events).encode("ascii")


@final
class Fragments:
    """The fragments in one folder, with a bound on all of them together."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        """`most_bytes`: of all files; nothing is written that would pass it."""
        self.folder, self.most_bytes = folder, most_bytes
        self._open: Path | None = None
        self._first: dict[Path, tuple[int, int]] = {}
        if folder.exists():
            remove_stale(folder)

    def files(self) -> list[Path]:
        """The files, oldest first."""
        found = self.folder.glob(f"*{SUFFIX}") if self.folder.is_dir() else iter(())
        kept = [path for path in found if not path.name.startswith(TEMPORARY)]
        return sorted(kept, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files())

    def append(self, events: Sequence[Event]) -> None:
        """Write events and sync them. Errors: `StorageFull` at the bound or on a full disk, `StorageError`; nothing is kept then."""
        data = _lines(events)
        if self.size() + len(data) > self.most_bytes:
            raise StorageFull(
                f"the fragments in {self.folder} have reached {self.most_bytes} bytes; bring the database back, or raise "
                "fragment_bytes"
            )
        try:
            path = self._write(data)
        except OSError as error:
            self._open = None
            raise StorageFull(f"cannot write to {self.folder}: {error.strerror or error}; check the disk") from error
        self._remember(path, events)

    def _remember(self, path: Path, events: Sequence[Event]) -> None:
        """The first event and the first text to go: a file in which nothing is due need not be read."""
        born, gone = self._first.get(path, (NEVER, NEVER))
        self._first[path] = (
            min([born, *(one.ts_us for one in events)]),
            min([gone, *(one.expires_us for one in events if one.expires_us is not None)]),
        )

    def _write(self, data: bytes) -> Path:
        if self._open is None or not self._open.exists() or self._open.stat().st_size + len(data) > FILE_BYTES:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open = self.folder / f"{uuid.uuid4()}{SUFFIX}"
        descriptor = os.open(self._open, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        before = os.fstat(descriptor).st_size
        try:
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                os.fsync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)
        if not before:
            self._sync_folder()
        return self._open

    def _sync_folder(self) -> None:
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def read(self, path: Path) -> Fragment:
        """The events of one file. Nothing is added to it after this."""
        if path == self._open:
            self._open = None
        events, skipped = [], 0
        for line in path.read_bytes().splitlines():
            try:
                events.append(event_of_json(line))
            except (ValueError, TypeError, KeyError):
                skipped += 1
        return Fragment(events, skipped)

    def remove(self, path: Path) -> None:
        """Delete a file whose events are in the database. Errors: `StorageError`."""
        self._first.pop(path, None)
        try:
            path.unlink(missing_ok=True)
            self._sync_folder()
        except OSError as error:
            raise StorageError(f"cannot remove {path}: {error.strerror or error}; check the folder") from error

    def expire(self, before_us: int, now_us: int) -> None:
        """Drop events from before a time, and texts whose time has come. Errors: `StorageError`, `StorageFull`."""
        for path in self.files():
            born, gone = self._first.get(path, (0, 0))
            if born >= before_us and gone >= now_us:
                continue
            events = self.read(path).events
            kept = [
                one._replace(text=None, redacted=False, expires_us=None) if (one.expires_us or now_us) < now_us else one
                for one in events
                if one.ts_us >= before_us
            ]
            self._first.pop(path, None)
            self._remember(path, kept)
            if not kept:
                self.remove(path)
            elif kept != events:
                write_bytes(path, _lines(kept))
                path.chmod(0o600)
