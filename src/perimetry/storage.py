"""Durable bytes: atomic files and folders, strict JSON, hashes, locks. Every lasting write goes through here.

A write is made under a temporary name in the same folder, synced, then renamed; a process that dies leaves the old
state or the new one, never a torn one, and so does a machine that loses power. `ENOSPC` becomes `StorageFull`.
"""

import contextlib
import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from perimetry.errors import BadHeader, Locked, StorageError, StorageFull
from perimetry.strict import MAX_DEPTH, parse_json, plain_size

__all__ = [
    "append_line",
    "atomic_directory",
    "atomic_file",
    "fault_point",
    "free_bytes",
    "hash_bytes",
    "hash_file",
    "hash_json",
    "lock",
    "read_json",
    "remove_stale",
    "require_space",
    "write_bytes",
    "write_json",
]

TEMPORARY = ".tmp-"
MAX_JSON_BYTES = 64 * 2**20


def fault_point(name: str, path: Path) -> None:
    """A moment of a durable write, where tests put a fault: before-write, after-write, -fsync, -rename, -manifest."""


def _raise_storage(error: OSError, path: Path) -> NoReturn:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise StorageFull(
            f"no space left while writing {path}; nothing that was there before is lost; free some space and run the "
            "same command again"
        ) from error
    raise StorageError(
        f"cannot write {path}: {error.strerror or error}; check the folder and its permissions"
    ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one step (Linux `renameat2`); False where the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    here, swap = -100, 2
    return renameat2 is not None and renameat2(here, os.fsencode(one), here, os.fsencode(other), swap) == 0


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well, sync it and rename it to `path`.

    Errors: `StorageFull` when the device is full, `StorageError` for other refusals of the disk.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fault_point("before-write", path)
        yield temporary
        fault_point("after-write", temporary)
        _sync(temporary)
        fault_point("after-fsync", temporary)
        os.replace(temporary, path)
        _sync(path.parent)
        fault_point("after-rename", path)
    except OSError as error:
        _raise_storage(error, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _hold(folder: Path) -> int:
    """The right to a temporary folder, until the descriptor is closed or the process dies. Errors: `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sweep(path: Path) -> None:
    """Remove what killed writers of `path` left beside it: temporary folders that no living process holds."""
    for left in path.parent.glob(f"{TEMPORARY}{glob.escape(path.name)}.*"):
        if left.is_dir() and (path.exists() or left.suffix != ".old"):
            with contextlib.suppress(OSError):
                descriptor = _hold(left)
                shutil.rmtree(left, ignore_errors=True)
                os.close(descriptor)


@contextlib.contextmanager
def atomic_directory(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary folder; when the block ends well, sync its files and rename it to `path`.

    An existing `path` is moved aside first and removed after the rename (with `replace=False` it is an error). What killed writers
    of the same folder left under temporary names goes first.
    """
    path = Path(os.path.abspath(path))  # "." and ".." have no name to put a temporary one beside
    temporary = path.with_name(f"{TEMPORARY}{path.name}.{uuid.uuid4().hex[:8]}")
    old, held = temporary.with_name(temporary.name + ".old"), -1
    try:
        if path.exists() and not replace:
            raise StorageError(f"{path} exists already; choose another place or remove it")
        _sweep(path)
        temporary.mkdir(parents=True)
        held = _hold(temporary)
        fault_point("before-write", path)
        yield temporary
        fault_point("after-write", temporary)
        for entry in (*temporary.rglob("*"), temporary):
            _sync(entry)  # the folders too, whose entries are otherwise lost with the power
        fault_point("after-fsync", temporary)
        if path.exists() and _exchange(temporary, path):
            os.replace(temporary, old)
        else:
            if path.exists():
                os.replace(path, old)
            os.replace(temporary, path)
        _sync(path.parent)
        fault_point("after-rename", path)
    except OSError as error:
        _raise_storage(error, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        if held >= 0:
            os.close(held)


def remove_stale(folder: Path) -> None:
    """Remove what a killed process left under temporary names in `folder` (call it under a lock)."""
    for entry in folder.glob(f"{TEMPORARY}*") if folder.is_dir() else []:
        shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write strict JSON (no NaN, keys sorted) to `path` atomically."""
    text = json.dumps(value, indent=indent, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def append_line(path: Path, value: Any) -> None:
    """Append one JSON object as a line; a torn last line of an earlier process is the reader's to skip."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")
    except OSError as error:
        _raise_storage(error, path)


def read_json(path: Path, *, most: int | None = None, depth: int = MAX_DEPTH) -> Any:
    """Read strict JSON: at most `most` bytes (64 MiB if not given) and `depth` levels, and what `parse_json` refuses.

    Errors: `MissingFile`, `BadHeader`, `BadPath` (a pipe or a device).
    """
    most = MAX_JSON_BYTES if most is None else most
    size = plain_size(path)
    if size > most:
        raise BadHeader(f"{path} holds {size} bytes, at most {most} are read; that is no JSON of this kind")
    try:
        return parse_json(path.read_bytes(), depth=depth, values=max(10_000, most // 16))
    except ValueError as error:
        raise BadHeader(f"{path} is not strict JSON: {error}; fetch or make it again") from error


def hash_bytes(data: bytes) -> str:
    """SHA-256 of `data` in hexadecimal.

    >>> hash_bytes(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`: sorted keys, no spaces."""
    return hash_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def hash_file(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read in blocks."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def free_bytes(path: Path) -> int:
    """Free bytes on the device that holds `path` (or its nearest existing parent)."""
    here = path.absolute()
    while not here.exists():
        here = here.parent
    return shutil.disk_usage(here).free


def require_space(path: Path, wanted: int, what: str) -> None:
    """Raise `StorageFull` before work starts when `wanted` bytes would not fit."""
    free = free_bytes(path)
    if wanted > free:
        raise StorageFull(
            f"{what} needs {wanted / 1e6:,.0f} MB under {path}, where {free / 1e6:,.0f} MB are free; "
            "free some space or choose another folder"
        )


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the right to write to `folder`; released by the system when the process dies.

    Errors: `Locked` when another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / ".lock", "a+")  # noqa: SIM115
    except OSError as error:
        _raise_storage(error, folder)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise Locked(
                f"process {holder} is writing to {folder}; wait for it to end or choose another folder"
            ) from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
    finally:
        handle.close()
