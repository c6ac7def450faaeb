"""A disk that loses power: what was written is recorded, and every state that may be left is laid out again.

The model is harsher than a journal: what was not synced of a file is gone, what was not synced of a folder may be gone or there up to
any operation, and syncing one folder says nothing of another.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from perimetry import storage

__all__ = ["Recorder", "lay_out"]


class Op(NamedTuple):
    """Something done to a folder: entries taken away, then entries made; or data of a file; or a sync of either."""

    kind: str
    """`names`, `data` or `sync`."""
    node: int
    """The file or the folder."""
    gone: tuple[tuple[int, str], ...] = ()
    """Entries (folder, name) that go."""
    made: tuple[tuple[int, str, int], ...] = ()
    """Entries (folder, name, what) that come."""
    data: bytes = b""


class Recorder:
    """Watches a folder while `perimetry.storage` writes in it."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.ops = root, list[Op]()
        self.files: dict[int, bytes] = {}
        self.entries: dict[tuple[int, str], int] = {}
        self._look()
        self.begin = len(self.ops)
        real_sync, real_replace, real_exchange = os.fsync, os.replace, storage._exchange

        def fsync(descriptor: int) -> None:
            self._look()
            real_sync(descriptor)
            self.ops.append(Op("sync", os.fstat(descriptor).st_ino))

        def replace(one: Path, other: Path) -> None:
            self._look()
            real_replace(one, other)
            self._look()

        def exchange(one: Path, other: Path) -> bool:
            self._look()
            done = real_exchange(one, other)
            self._look()
            return done

        patch.setattr(storage.os, "fsync", fsync)
        patch.setattr(storage.os, "replace", replace)
        patch.setattr(storage, "_exchange", exchange)

    def _look(self) -> None:
        """Note as one operation each what has changed since the last look: data, then names."""
        now: dict[tuple[int, str], int] = {}
        for folder, names, files in os.walk(self.root):
            here = Path(folder).stat().st_ino
            for name in (*names, *files):
                path = Path(folder, name)
                now[here, name] = node = path.stat().st_ino
                if path.is_file() and self.files.get(node) != path.read_bytes():
                    self.files[node] = path.read_bytes()
                    self.ops.append(Op("data", node, data=self.files[node]))
        gone = tuple(k for k, v in self.entries.items() if now.get(k) != v)
        made = tuple((*k, v) for k, v in now.items() if self.entries.get(k) != v)
        if gone and made:
            self.ops.append(Op("names", 0, gone, made))  # a rename or an exchange: one step
        else:
            self.ops += [Op("names", k[0], gone=(k,)) for k in gone]
            self.ops += [Op("names", m[0], made=(m,)) for m in made]
        self.entries = now

    def states(self) -> Iterator[tuple[dict[tuple[int, str], int], dict[int, bytes]]]:
        """Names and data of every state that a loss of power may leave, from before the first operation to after the last."""
        self._look()
        for stop in range(self.begin, len(self.ops) + 1):
            done = self.ops[:stop]
            pending = [
                i for i, op in enumerate(done) if op.kind == "names" and i >= self.begin and not _synced(done, i)
            ]
            for keep in range(len(pending) + 1):
                lost = set(pending[keep:])
                yield _apply([op for i, op in enumerate(done) if i not in lost], self.begin)


def _synced(ops: list[Op], at: int) -> bool:
    folders = {folder for folder, *_ in (*ops[at].gone, *ops[at].made)}
    after = {op.node for op in ops[at:] if op.kind == "sync"}
    return folders <= after


def _apply(ops: list[Op], begin: int) -> tuple[dict[tuple[int, str], int], dict[int, bytes]]:
    names: dict[tuple[int, str], int] = {}
    data: dict[int, bytes] = {}
    fresh: dict[int, bytes] = {}
    for i, op in enumerate(ops):
        if op.kind == "names":
            for entry in op.gone:
                names.pop(entry, None)
            names |= {(folder, name): node for folder, name, node in op.made}
        elif op.kind == "data":
            fresh[op.node] = op.data
            if i < begin:
                data[op.node] = op.data
            else:
                data.setdefault(op.node, b"")
        elif op.node in fresh:
            data[op.node] = fresh[op.node]
    return names, data


def lay_out(names: dict[tuple[int, str], int], data: dict[int, bytes], root: int, target: Path) -> None:
    """Write a state to a folder."""
    target.mkdir()
    for (folder, name), node in names.items():
        if folder == root:
            if node in data:
                (target / name).write_bytes(data[node])
            else:
                lay_out(names, data, node, target / name)
