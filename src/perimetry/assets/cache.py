"""Where downloads and prepared assets lie: one folder of the user's cache, or `PERIMETRY_CACHE`."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from perimetry.errors import CorruptArtifact, Locked, MissingFile, StorageError
from perimetry.storage import hash_bytes, hash_file, lock, read_json, write_json

__all__ = ["cache_folder", "known_hash", "offline", "prepared_folder", "raw_folder", "waiting_lock"]

LOCK_WAIT_S = 3600.0
LOCK_POLL_S = 0.2
TRUE = {"1", "true", "yes", "on"}


def cache_folder() -> Path:
    """`PERIMETRY_CACHE` where it is set, else the user's cache folder of the system."""
    given = os.environ.get("PERIMETRY_CACHE", "").strip()
    return Path(given).expanduser().absolute() if given else platformdirs.user_cache_path("perimetry")


def raw_folder(sha256: str) -> Path:
    """The folder of one download, named by the hash of its bytes."""
    return cache_folder() / "raw" / sha256


def prepared_folder(name: str, version: int) -> Path:
    """The folder of one prepared asset; a new way of preparing it gets a new version and so a new folder."""
    return cache_folder() / "prepared" / name / f"v{version}"


def offline() -> bool:
    """True when `PERIMETRY_OFFLINE` forbids the network."""
    return os.environ.get("PERIMETRY_OFFLINE", "").strip().lower() in TRUE


@contextlib.contextmanager
def waiting_lock(folder: Path, *, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Hold the lock of `folder`, waiting while another process works there.

    Two commands that need the same asset thus do the work once. Errors: `Locked` after `wait_s` seconds.
    """
    end = time.monotonic() + wait_s
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock(folder))
                break
            except Locked:
                if time.monotonic() >= end:
                    raise
                time.sleep(LOCK_POLL_S)
        yield


def known_hash(path: Path) -> str:
    """SHA-256 of a file, remembered in the cache for as long as its size, time and inode stay the same."""
    state = path.stat()
    stamp: dict[str, Any] = {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "inode": state.st_ino}
    record = cache_folder() / "hashes" / f"{hash_bytes(os.fsencode(path.absolute()))}.json"
    with contextlib.suppress(MissingFile, CorruptArtifact, OSError):
        found = read_json(record)
        if isinstance(found, dict) and all(found.get(k) == v for k, v in stamp.items()):
            return str(found["sha256"])
    digest = hash_file(path)
    with contextlib.suppress(StorageError):
        write_json(record, {**stamp, "sha256": digest})
    return digest
