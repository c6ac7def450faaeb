"""Fragments keep events while a database is down: synced, bounded, forgotten in time, and clear about what is damaged."""

import errno
import os
import stat
from pathlib import Path

import pytest
from tests.monitor.store.makers import NOON, an_event

from perimetry.errors import StorageFull
from perimetry.monitor.store.fragments import FILE_BYTES, Fragments


@pytest.fixture
def fragments(tmp_path: Path) -> Fragments:
    return Fragments(tmp_path / "fragments", 4 * 2**20)


def _all(fragments: Fragments) -> list[str]:
    return [one.request_id for path in fragments.files() for one in fragments.read(path).events]


def test_what_is_appended_is_there_for_another_process(fragments: Fragments) -> None:
    fragments.append([an_event(1), an_event(2)])
    fragments.append([an_event(3)])
    (path,) = fragments.files()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.stem) == 36
    assert _all(Fragments(fragments.folder, 1)) == ["r1", "r2", "r3"]
    assert fragments.size() == path.stat().st_size > 0
    fragments.remove(path)
    assert fragments.files() == []
    fragments.append([an_event(4)])
    assert fragments.files() != [path]


def test_every_append_is_synced(fragments: Fragments, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    plain = os.fsync

    def watched(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(path.read_bytes() if path.is_file() else b"folder")
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    fragments.append([an_event(1)])
    fragments.append([an_event(2)])
    (path,) = fragments.files()
    whole = path.read_bytes()
    assert synced == [whole[: whole.index(b"\n") + 1], b"folder", whole]


def test_a_file_is_not_continued_after_it_was_read_nor_when_it_is_full(fragments: Fragments) -> None:
    fragments.append([an_event(1)])
    _all(fragments)
    fragments.append([an_event(2)])
    assert len(fragments.files()) == 2
    fragments.append([an_event(3, text="x" * FILE_BYTES, expires_us=1)])
    fragments.append([an_event(4)])
    assert len(fragments.files()) == 4
    assert sorted(_all(fragments)) == ["r1", "r2", "r3", "r4"]


def test_the_bound_holds_and_nothing_is_kept_in_part(tmp_path: Path) -> None:
    fragments = Fragments(tmp_path / "f", 2**16)
    with pytest.raises(StorageFull, match="have reached 65536 bytes; bring the database back, or raise fragment_bytes"):
        list(map(fragments.append, ([an_event(i)] for i in range(1_000))))
    assert 2**16 - 2_000 < fragments.size() <= 2**16
    before = fragments.size()
    with pytest.raises(StorageFull):
        fragments.append([an_event(i) for i in range(200)])
    assert fragments.size() == before
    fragments.remove(fragments.files()[0])
    fragments.append([an_event(1)])


def test_a_full_disk_leaves_whole_lines_only(fragments: Fragments, monkeypatch: pytest.MonkeyPatch) -> None:
    fragments.append([an_event(1)])
    plain = os.write

    def short(descriptor: int, data: memoryview) -> int:
        if len(data) < 50:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(StorageFull, match="No space left on device; check the disk"):
        fragments.append([an_event(2)])
    monkeypatch.undo()
    fragments.append([an_event(3)])
    found = [fragments.read(path) for path in fragments.files()]
    assert sorted(one.request_id for part in found for one in part.events) == ["r1", "r3"]
    assert sum(part.skipped for part in found) == 0


def test_damaged_lines_are_counted_and_left_out(fragments: Fragments) -> None:
    fragments.append([an_event(i) for i in range(4)])
    (path,) = fragments.files()
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"n_chars": 11', b'"n_chars": -1')
    path.write_bytes(b"".join(lines)[:-30])
    found = fragments.read(path)
    assert [one.request_id for one in found.events] == ["r0", "r2"]
    assert found.skipped == 2


def test_events_and_texts_go_when_their_time_has_come(fragments: Fragments) -> None:
    events = [an_event(i, ts_us=NOON + i * 100, text=f"secret-{i}", expires_us=NOON + i * 100 + 50) for i in range(4)]
    fragments.append(events)
    again = Fragments(fragments.folder, 2**20)
    for one in (fragments, again):
        one.expire(NOON, NOON)
        assert _all(one) == ["r0", "r1", "r2", "r3"]
    fragments.expire(NOON + 100, NOON + 200)
    (path,) = fragments.files()
    assert b"secret-0" not in path.read_bytes()
    assert b"secret-1" not in path.read_bytes()
    found = fragments.read(path).events
    assert [(one.request_id, one.text) for one in found] == [("r1", None), ("r2", "secret-2"), ("r3", "secret-3")]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    fragments.expire(NOON + 1_000, NOON + 1_000)
    assert fragments.files() == []


def test_what_a_dead_process_left_half_renamed_goes(fragments: Fragments) -> None:
    fragments.append([an_event(1)])
    (fragments.folder / ".tmp-x.jsonl.12345678").write_text("{")
    assert _all(Fragments(fragments.folder, 2**20)) == ["r1"]
    assert len(list(fragments.folder.iterdir())) == 1
