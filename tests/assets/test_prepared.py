import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from tests.assets.server import Server

from perimetry.assets.cache import prepared_folder, raw_folder, waiting_lock
from perimetry.assets.fetch import part_path
from perimetry.assets.prepared import MANIFEST, is_pulled, make, obtain, verify_prepared
from perimetry.assets.spec import AssetSpec, Inputs, RawFile
from perimetry.errors import CorruptArtifact, DownloadFailed, Locked, MissingFile, StorageFull
from perimetry.storage import hash_bytes

DATA = Random(1).randbytes(2_000_000)
SHA = hash_bytes(DATA)


def reverse(inputs: Inputs, out: Path) -> None:
    assert inputs.raw is not None
    assert not list(inputs.scratch.iterdir())
    (inputs.scratch / "half-way").write_bytes(b"x")
    (out / "deep").mkdir()
    (out / "deep" / "a.bin").write_bytes(inputs.raw.read_bytes()[::-1])
    (out / "b.txt").write_text("done")


def join(inputs: Inputs, out: Path) -> None:
    (out / "names.txt").write_text(" ".join(sorted(inputs.needs)) + str(inputs.raw))


def spec(url: str, prepare: Callable[[Inputs, Path], None] = reverse) -> AssetSpec:
    return AssetSpec("tiny", "text", "s", "l", RawFile("tiny.bin", SHA, len(DATA), "url", url), prepare, 1000)


def pulled(made: AssetSpec, *, keep_raw: bool = False, hashes: bool = False) -> Path:
    return make(made, {"tiny": made}, progress=False, keep_raw=keep_raw, hashes=hashes)


def test_pull_prepares_once_and_drops_the_download(server: Server) -> None:
    made = spec(server.add("/f", DATA))
    folder = pulled(made)
    assert folder == prepared_folder("tiny", 1)
    assert (folder / "deep" / "a.bin").read_bytes() == DATA[::-1]
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["files"]["deep/a.bin"] == {"sha256": hash_bytes(DATA[::-1]), "size": len(DATA)}
    assert manifest["raw"] == SHA
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    pulled(made, hashes=True)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    assert len(server.requests) == 1
    assert sorted(p.name for p in folder.parent.iterdir()) == [".lock", "v1"]
    assert [p.name for p in raw_folder(SHA).iterdir()] == [".lock"]
    found = verify_prepared(made)
    assert (found.problems, found.files, found.raw, found.digest) == ((), 2, "not kept", manifest["digest"])


def test_a_kept_download_is_checked_and_used_again(server: Server) -> None:
    made = spec(server.add("/f", DATA))
    folder = pulled(made, keep_raw=True)
    assert verify_prepared(made).raw == "whole"
    (folder / "b.txt").unlink()
    pulled(made, keep_raw=True)
    assert len(server.requests) == 1
    kept = raw_folder(SHA) / "tiny.bin"
    kept.write_bytes(DATA[::-1])
    found = verify_prepared(made)
    assert found.raw == "damaged"
    assert "does not hash as pinned" in found.problems[0]


def test_damage_is_found_and_mended(server: Server) -> None:
    made = spec(server.add("/f", DATA))
    folder = pulled(made)
    digest = verify_prepared(made).digest
    (folder / "b.txt").write_text("DONE")  # the same size: only a hash tells
    assert is_pulled(made)
    assert not is_pulled(made, hashes=True)
    assert verify_prepared(made).problems == ("b.txt does not hash as its manifest says",)
    pulled(made, hashes=True)
    assert verify_prepared(made)[2:] == (digest, 2, "not kept", ())
    (folder / "b.txt").write_text("longer than before")
    (folder / "deep" / "a.bin").unlink()
    (folder / "new").write_text("")
    assert set(verify_prepared(made).problems) == {
        "b.txt has 18 bytes, 4 wanted",
        "deep/a.bin is missing",
        "new is in no manifest",
    }
    pulled(made)
    assert verify_prepared(made).problems == ()
    (folder / MANIFEST).write_text("{}")
    with pytest.raises(CorruptArtifact, match="perimetry assets pull tiny"):
        verify_prepared(made)
    manifest = folder / MANIFEST
    pulled(made)
    manifest.write_text(manifest.read_text().replace(digest, "0" * 64))
    assert verify_prepared(made).problems == ("the digest is not that of the files",)


def test_not_pulled(server: Server) -> None:
    with pytest.raises(MissingFile, match=r"tiny is not in the cache .*; run `perimetry assets pull tiny`"):
        verify_prepared(spec(server.url))


def test_the_mirror_comes_before_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "mirror" / "copy"
    copy.parent.mkdir()
    copy.write_bytes(DATA)
    monkeypatch.setenv("PERIMETRY_MIRROR", str(copy.parent))
    monkeypatch.setenv("PERIMETRY_OFFLINE", "1")
    made = spec("http://127.0.0.1:9/none")
    pulled(made)
    assert copy.read_bytes() == DATA
    assert verify_prepared(made).problems == ()
    assert not raw_folder(SHA).exists()


def test_offline_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERIMETRY_OFFLINE", "1")
    with pytest.raises(DownloadFailed, match=r"tiny\.bin is neither in the cache nor in PERIMETRY_MIRROR, and PERI"):
        pulled(spec("http://127.0.0.1:9/none"))


def test_found_on_an_index_and_on_npm(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add("/simple/tiny/", f'<a href="/f/tiny.bin#sha256={SHA}">f</a>'.encode(), "text/html")
    server.add("/npm/tiny/1.0", b'{"dist": {"tarball": "%s/f/tiny.bin"}}' % server.url.encode(), "application/json")
    server.add("/f/tiny.bin", DATA)
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", server.url + "/simple")
    monkeypatch.setenv("npm_config_registry", server.url + "/npm")
    for raw in (RawFile("tiny.bin", SHA, None, "index", "Tiny"), RawFile("tiny.bin", SHA, None, "npm", "tiny", "1.0")):
        got = obtain(raw)
        assert got.path.read_bytes() == DATA
        got.path.unlink()


def test_needs_are_made_first(server: Server) -> None:
    first = spec(server.add("/f", DATA))
    second = AssetSpec("second", "text", "s", "l", None, join, 1, needs=("tiny",))
    folder = make(second, {"tiny": first, "second": second}, progress=False, keep_raw=False)
    assert (folder / "names.txt").read_text() == "tinyNone"
    assert is_pulled(first)


def test_a_full_disk_during_preparation_leaves_nothing(server: Server) -> None:
    def fill(inputs: Inputs, out: Path) -> None:
        (out / "half").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    made = spec(server.add("/f", DATA), fill)
    with pytest.raises(StorageFull, match=r"no space left while writing .*run the same command again"):
        pulled(made)
    assert [p.name for p in prepared_folder("tiny", 1).parent.iterdir()] == [".lock"]
    pulled(made._replace(prepare=reverse))
    assert len(server.requests) == 1  # what was downloaded is still there


def test_room_is_asked_for_before_preparation(server: Server) -> None:
    with pytest.raises(StorageFull, match="preparing tiny needs"):
        pulled(spec(server.add("/f", DATA))._replace(prepared_bytes=10**18))


def test_waiting_for_another_process_ends(tmp_path: Path) -> None:
    with waiting_lock(tmp_path), pytest.raises(Locked, match=f"process {os.getpid()} is writing"):  # noqa: SIM117
        with waiting_lock(tmp_path, wait_s=0.0):
            pass


SCRIPT = """
import os, sys, time
from pathlib import Path
from perimetry.assets import ASSETS, AssetSpec, RawFile
from perimetry.cli.assets import app

def prepare(inputs, out):
    (inputs.scratch / "half").write_bytes(b"x" * 1000)
    (out / "a.bin").write_bytes(inputs.raw.read_bytes()[::-1])
    if os.environ.get("STALL"):
        Path(os.environ["STALL"]).touch()
        time.sleep(600)
    (out / "b.txt").write_text("done")

url, sha, size = sys.argv[1:]
ASSETS["tiny"] = AssetSpec("tiny", "text", "s", "l", RawFile("tiny.bin", sha, int(size), "url", url), prepare, 1000)
app(["pull", "tiny", "--json"])
"""


def start(url: str, cache: Path, **extra: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, url, SHA, str(len(DATA))]
    environment = {**os.environ, "PERIMETRY_CACHE": str(cache), **extra}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return str(json.loads(out)[0]["digest"])


def kill_when(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    for _ in range(2400):
        if ready():
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_kill_9_at_any_moment_ends_with_the_same_hashes(server: Server, tmp_path: Path) -> None:
    url = server.add("/f", DATA)
    wanted = finish(start(url, tmp_path / "whole"))
    cache = tmp_path / "killed"
    part = part_path(cache / "raw" / SHA / "tiny.bin", SHA)

    server.stall_after = 800_000
    kill_when(start(url, cache), lambda: part.is_file() and part.stat().st_size >= 500_000)
    arrived = part.stat().st_size
    server.stall_after = None
    server.resume.set()

    stalled = tmp_path / "stalled"
    kill_when(start(url, cache, STALL=str(stalled)), stalled.exists)
    assert server.requests[-1] == ("/f", f"bytes={arrived}-")
    left = [p.name for p in (cache / "prepared" / "tiny").iterdir()]
    assert "v1" not in left
    assert any(name.startswith(".tmp-v1") for name in left)

    count = len(server.requests)
    assert finish(start(url, cache)) == wanted
    assert len(server.requests) == count
    assert sorted(p.name for p in (cache / "prepared" / "tiny").iterdir()) == [".lock", "v1"]


def test_two_processes_do_the_work_once(server: Server, tmp_path: Path) -> None:
    url = server.add("/f", DATA)
    both = [start(url, tmp_path / "cache") for _ in range(2)]
    with contextlib.ExitStack() as stack:
        for process in both:
            stack.callback(process.kill)
        assert len({finish(process) for process in both}) == 1
    assert len(server.requests) == 1
