import errno
import io
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.assets.server import Server

from perimetry.assets import fetch as module
from perimetry.assets.fetch import fetch, part_path
from perimetry.errors import DownloadFailed, HashMismatch, StorageFull
from perimetry.storage import hash_bytes

DATA = Random(0).randbytes(1_500_000)
SHA = hash_bytes(DATA)


def test_downloads_verifies_and_leaves_nothing_else(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "d" / "file.bin"
    assert fetch([server.add("/f", DATA)], SHA, len(DATA), target) == target
    assert target.read_bytes() == DATA
    assert sorted(p.name for p in target.parent.iterdir()) == [".lock", "file.bin"]


def test_a_file_that_is_there_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(DATA)
    fetch([server.add("/f", DATA)], SHA, len(DATA), target)
    assert server.requests == []


def test_a_damaged_file_is_replaced(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(DATA[:-1])
    fetch([server.add("/f", DATA)], SHA, len(DATA), target)
    assert target.read_bytes() == DATA


def test_continues_a_part_with_a_range(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    part_path(target, SHA).write_bytes(DATA[:1_000_000])
    fetch([server.add("/f", DATA)], SHA, len(DATA), target)
    assert server.requests == [("/f", "bytes=1000000-")]
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("size", [len(DATA), None])
def test_a_server_that_ignores_ranges_is_read_from_the_start(server: Server, tmp_path: Path, size: int | None) -> None:
    server.ignore_range = True
    target = tmp_path / "file.bin"
    part_path(target, SHA).write_bytes(DATA[:1_000_000])
    fetch([server.add("/f", DATA)], SHA, size, target)
    assert target.read_bytes() == DATA


def test_a_cut_transfer_is_continued(server: Server, tmp_path: Path) -> None:
    server.cut_after = [300_000, 0, 700_000]
    target = tmp_path / "file.bin"
    fetch([server.add("/f", DATA)], SHA, len(DATA), target)
    starts = [int(r.removeprefix("bytes=").rstrip("-")) if r else 0 for _, r in server.requests]
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert starts[-1] > 300_000
    assert target.read_bytes() == DATA


def test_a_part_with_wrong_bytes_is_thrown_away_once(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    part_path(target, SHA).write_bytes(b"\0" * 1000)
    fetch([server.add("/f", DATA)], SHA, len(DATA), target)
    assert [r for _, r in server.requests] == ["bytes=1000-", None]
    assert target.read_bytes() == DATA


def test_a_whole_part_needs_no_network(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    part_path(target, SHA).write_bytes(DATA)
    fetch([server.add("/f", DATA)], SHA, len(DATA), target)
    assert server.requests == []
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("wrong", [DATA[:-1] + b"?", DATA + b"more", DATA[:-1] + bytes([DATA[-1] ^ 1])])
def test_other_bytes_are_refused(server: Server, tmp_path: Path, wrong: bytes) -> None:
    target = tmp_path / "file.bin"
    with pytest.raises(HashMismatch, match=f"{SHA} is pinned") as caught:
        fetch([server.add("/f", wrong)], SHA, len(DATA), target)
    assert "try another index or mirror" in str(caught.value)
    assert not target.exists()
    assert not part_path(target, SHA).exists()


def test_the_next_address_is_tried_after_a_wrong_one(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    urls = [server.url + "/absent", server.add("/wrong", DATA[::-1]), server.add("/f", DATA)]
    fetch(urls, SHA, len(DATA), target)
    assert target.read_bytes() == DATA


def test_a_passing_refusal_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.answers = [503, 429, 500]
    target = tmp_path / "file.bin"
    fetch([server.add("/f", DATA)], SHA, len(DATA), target)
    assert len(server.requests) == 4


def test_a_lasting_refusal_is_told(server: Server, tmp_path: Path) -> None:
    server.answers = [403]
    with pytest.raises(DownloadFailed, match=r"file\.bin could not be downloaded \(http.*HTTP 403") as caught:
        fetch([server.add("/f", DATA)], SHA, len(DATA), tmp_path / "file.bin")
    assert len(server.requests) == 1
    assert "PERIMETRY_MIRROR" in str(caught.value)


def test_no_server_at_all(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="ConnectError"):
        fetch(["http://127.0.0.1:9/f"], SHA, len(DATA), tmp_path / "file.bin")


def test_a_login_stays_out_of_messages(server: Server, tmp_path: Path) -> None:
    url = server.url.replace("http://", "http://me:secret@") + "/absent"
    with pytest.raises(DownloadFailed) as caught:
        fetch([url], SHA, len(DATA), tmp_path / "file.bin")
    assert "secret" not in str(caught.value)
    assert server.headers[0]["Authorization"].startswith("Basic ")


def test_unknown_size_and_file_addresses(server: Server, tmp_path: Path) -> None:
    fetch([server.add("/f", DATA)], SHA, None, tmp_path / "a" / "file.bin")
    source = tmp_path / "a b.bin"
    source.write_bytes(DATA)
    assert fetch([source.as_uri()], SHA, len(DATA), tmp_path / "b" / "file.bin").read_bytes() == DATA
    with pytest.raises(DownloadFailed, match="no such file"):
        fetch([(tmp_path / "none").as_uri()], SHA, len(DATA), tmp_path / "c" / "file.bin")


def test_space_is_asked_for_first(server: Server, tmp_path: Path) -> None:
    with pytest.raises(StorageFull, match=r"the download of file\.bin needs"):
        fetch([server.add("/f", DATA)], SHA, 10**18, tmp_path / "file.bin")
    assert server.requests == []


def test_a_full_disk_keeps_what_has_arrived(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file.bin"

    class Full(io.FileIO):
        def write(self, data: Any, /) -> int:
            if self.tell() >= 500_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(module, "open", Full, raising=False)
    with pytest.raises(StorageFull, match="what has arrived is kept"):
        fetch([server.add("/f", DATA)], SHA, len(DATA), target)
    monkeypatch.undo()
    kept = part_path(target, SHA).stat().st_size
    assert kept >= 500_000
    fetch([server.add("/f", DATA)], SHA, len(DATA), target)
    assert server.requests[-1] == ("/f", f"bytes={kept}-")
    assert target.read_bytes() == DATA
