"""Faults at the named moments of `perimetry.storage`."""

import os
import signal
from pathlib import Path

import pytest

from perimetry import artifact, storage

__all__ = ["Faults", "files_of"]


class Faults:
    """Counts the moments; at one of them kills this process, or raises, after cutting what was written where that is asked."""

    def __init__(
        self, patch: pytest.MonkeyPatch, at: int = -1, error: OSError | None = None, *, short: bool = False
    ) -> None:
        self.seen: list[tuple[str, str]] = []
        self.at, self.error, self.short = at, error, short
        patch.setattr(storage, "fault_point", self)
        patch.setattr(artifact, "fault_point", self)

    def __call__(self, name: str, path: Path) -> None:
        """A moment."""
        self.seen.append((name, path.name))
        if len(self.seen) - 1 != self.at:
            return
        if self.short and name == "after-write":
            files = [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if p.is_file()]
            for file in files[-1:]:
                os.truncate(file, file.stat().st_size // 2)
        if self.error is not None:
            raise self.error
        os.kill(os.getpid(), signal.SIGKILL)


def files_of(folder: Path) -> dict[str, str]:
    """Hashes of the files that last: no lock, no log (it tells times)."""
    return {
        str(p.relative_to(folder)): storage.hash_file(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in (".lock", "log.jsonl", "run.json")
    }
