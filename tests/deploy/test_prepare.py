"""What runs before the service in the chart: fetch, compare, unpack; nothing else ever lies in the folder."""

import functools
import hashlib
import http.server
import importlib.util
import io
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.deploy.tools import CHART

from perimetry.monitor.store.hashing import install_key

SCRIPT = CHART / "files" / "prepare.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def packed(path: Path, *members: tuple[str, bytes | str | None], mode: str = "w:gz") -> str:
    """An archive of files (bytes), links (text) and folders (None), and its SHA-256."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, what in members:
            info = tarfile.TarInfo(name)
            if isinstance(what, bytes):
                info.size = len(what)
            elif what is None:
                info.type = tarfile.DIRTYPE
            else:
                info.type, info.linkname = tarfile.SYMTYPE, what
            tar.addfile(info, io.BytesIO(what) if isinstance(what, bytes) else None)
    return hashlib.sha256(path.read_bytes()).hexdigest()


GOOD = (("./meter", None), ("./meter/meter.json", b"{}"), ("model/weights.bin", b"w" * 3_000_000))


def run(script: ModuleType, source: str | Path, sha256: str, folder: Path, *more: str) -> int:
    folder.mkdir(exist_ok=True)
    code: int = script.main([f"--from={source}", f"--sha256={sha256}", f"--to={folder}", *more])
    return code


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_an_archive_is_unpacked(script: ModuleType, tmp_path: Path, mode: str) -> None:
    sha256 = packed(tmp_path / "a.tar", *GOOD, mode=mode)
    folder = tmp_path / "artifacts"
    folder.mkdir()
    (folder / "left").mkdir()
    (folder / "left" / "over").write_text("of the last start")
    assert run(script, tmp_path / "a.tar", sha256.upper(), folder) == 0
    assert sorted(p.name for p in folder.iterdir()) == ["meter", "model"]
    assert (folder / "model" / "weights.bin").read_bytes() == GOOD[2][1]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_archive_is_fetched(tmp_path: Path, served: str) -> None:
    """As the pod runs it, in a process of its own that has the standard library alone."""
    sha256 = packed(tmp_path / "served" / "a.tar.gz", *GOOD)
    folder = tmp_path / "artifacts"
    folder.mkdir()
    command = [sys.executable, "-I", "-S", str(SCRIPT), f"--from={served}/a.tar.gz", f"--sha256={sha256}"]
    done = subprocess.run([*command, f"--to={folder}"], capture_output=True, text=True, env={}, check=False)
    assert (done.returncode, done.stderr) == (0, f"2 files in {folder}\n")
    done = subprocess.run(
        [*command[:-2], f"--from={served}/none", *command[-1:], f"--to={folder}"],
        capture_output=True,
        text=True,
        env={},
        check=False,
    )
    assert done.returncode == 1
    assert "404" in done.stderr
    assert list(folder.iterdir()) == []


def test_another_archive_is_refused_unopened(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(tmp_path / "a.tar", *GOOD)
    assert run(script, tmp_path / "a.tar", "b" * 64, tmp_path / "artifacts") == 1
    assert "was wanted" in capsys.readouterr().err
    assert list((tmp_path / "artifacts").iterdir()) == []


@pytest.mark.parametrize(
    "member",
    [
        ("../outside", b"x"),
        ("meter/../../outside", b"x"),
        ("/outside", b"x"),
        ("meter/link", "/etc/passwd"),
        ("meter/meter.json", b"a second one"),
        ("..\\outside", b"x"),
    ],
)
def test_a_hostile_member_is_refused(script: ModuleType, tmp_path: Path, member: tuple[str, bytes | str]) -> None:
    sha256 = packed(tmp_path / "a.tar", *GOOD, member)
    assert run(script, tmp_path / "a.tar", sha256, tmp_path / "artifacts") == 1
    assert list((tmp_path / "artifacts").iterdir()) == []
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("damage", [b"", b"not an archive", None])
def test_what_is_no_archive_is_refused(script: ModuleType, tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "a.tar"
    packed(path, *GOOD)
    path.write_bytes(path.read_bytes()[:1000] if damage is None else damage)
    assert run(script, path, hashlib.sha256(path.read_bytes()).hexdigest(), tmp_path / "artifacts") == 1
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_an_archive_without_a_meter_is_refused(script: ModuleType, tmp_path: Path) -> None:
    sha256 = packed(tmp_path / "a.tar", ("model/weights.bin", b"w"))
    assert run(script, tmp_path / "a.tar", sha256, tmp_path / "artifacts") == 1


def test_the_key_is_for_its_owner(script: ModuleType, tmp_path: Path) -> None:
    """A Secret's file may be read by the group of the pod, and the service refuses such a key."""
    sha256 = packed(tmp_path / "a.tar", *GOOD)
    (tmp_path / "secret").write_bytes(bytes(range(32)))
    (tmp_path / "secret").chmod(0o440)
    key = tmp_path / "hash.key"
    for _ in range(2):
        more = (f"--key={tmp_path / 'secret'}", f"--key-to={key}")
        assert run(script, tmp_path / "a.tar", sha256, tmp_path / "artifacts", *more) == 0
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert install_key(key) == bytes(range(32))
