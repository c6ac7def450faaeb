"""Durable bytes: the old state or the new one, never a torn one."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perimetry import storage
from perimetry.errors import CorruptArtifact, Locked, MissingFile, StorageError, StorageFull
from perimetry.storage import (
    append_line,
    atomic_directory,
    atomic_file,
    free_bytes,
    hash_bytes,
    hash_file,
    hash_json,
    lock,
    read_json,
    remove_stale,
    require_space,
    write_bytes,
    write_json,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def is_plain(value: object) -> bool:
    """No half surrogates, which JSON cannot write as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@given(value=VALUES.filter(is_plain))
def test_json_comes_back(value: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "value.json"
    write_json(file, value)
    assert read_json(file) == value


@given(value=st.dictionaries(st.text(max_size=5), st.integers(), max_size=5))
def test_hashes_do_not_depend_on_the_order_of_keys(value: dict[str, int]) -> None:
    assert hash_json(value) == hash_json(dict(reversed(value.items())))
    assert hash_json(value) != hash_json({**value, "another key": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not strict JSON"),
        ("{", "not strict JSON"),
        ('{"a": 1, "a": 2}', "the same key twice"),
        ("[NaN]", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("[" * 100_000, "not strict JSON"),
        ('"\xff', "not strict JSON"),
    ],
)
def test_json_that_is_not_strict_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptArtifact, match=message):
        read_json(file)


def test_json_that_is_huge_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "x.json", list(range(100)))
    monkeypatch.setattr(storage, "MAX_JSON_BYTES", 50)
    with pytest.raises(CorruptArtifact, match="at most 50 are read"):
        read_json(tmp_path / "x.json")
    with pytest.raises(MissingFile, match="no file"):
        read_json(tmp_path / "y.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": value})
    assert list(tmp_path.iterdir()) == []


def fail_after(file: Path, text: str) -> NoReturn:
    file.write_text(text)
    raise RuntimeError("half way")


def test_a_failed_write_leaves_the_old(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", b"old")
    with pytest.raises(RuntimeError, match="half way"), atomic_file(tmp_path / "x") as temporary:
        fail_after(temporary, "ne")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_failed_folder_leaves_the_old(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "d") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(RuntimeError, match="half way"), atomic_directory(tmp_path / "d") as folder:
        fail_after(folder / "a", "new")
    assert (tmp_path / "d" / "a").read_text() == "old"
    with atomic_directory(tmp_path / "d") as folder:
        (folder / "b").write_text("new")
    assert [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.rglob("*"))] == ["d", "d/b"]
    with pytest.raises(StorageError, match="exists already"), atomic_directory(tmp_path / "d", replace=False):
        pytest.fail("the block must not run")


def test_folders_are_replaced_where_the_system_cannot_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_exchange", lambda one, other: False)
    for text in ("one", "two"):
        with atomic_directory(tmp_path / "d") as folder:
            (folder / "a").write_text(text)
    assert (tmp_path / "d" / "a").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_the_current_folder_can_be_named_by_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with atomic_directory(Path()) as folder:
        (folder / "a").write_text("x")
    assert (here / "a").read_text() == "x"
    assert [p.name for p in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(tmp_path: Path, code: int) -> None:
    message = r"no space left while writing .*x; nothing that was there before is lost"
    with pytest.raises(StorageFull, match=message), atomic_file(tmp_path / "x"):
        raise OSError(code, os.strerror(code))
    with pytest.raises(StorageFull, match="no space left"), atomic_directory(tmp_path / "d"):
        raise OSError(code, os.strerror(code))
    assert list(tmp_path.iterdir()) == []


def test_other_refusals_of_the_disk_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=r"cannot write .*file/x: .*; check the folder and its permissions"):
        write_bytes(tmp_path / "file" / "x", b"")
    with pytest.raises(StorageError, match="cannot write"):
        append_line(tmp_path / "file" / "x", {})
    with pytest.raises(StorageError, match="cannot write"), lock(tmp_path / "file"):
        pytest.fail("the block must not run")


def test_space_is_asked_for_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_space(tmp_path / "not" / "yet", 1, "a byte")
    assert free_bytes(tmp_path / "not" / "yet") > 0
    monkeypatch.setattr(storage, "free_bytes", lambda path: 2_000_000)
    message = r"the harvest needs 3 MB under .*, where 2 MB are free; free some space or choose another folder"
    with pytest.raises(StorageFull, match=message):
        require_space(tmp_path, 3_000_000, "the harvest")


def test_lines_are_appended(tmp_path: Path) -> None:
    for i in range(3):
        append_line(tmp_path / "deep" / "log.jsonl", {"i": i, "text": "é"})
    assert [json.loads(line)["i"] for line in (tmp_path / "deep" / "log.jsonl").read_text().splitlines()] == [0, 1, 2]


HOLDER = """
import sys, time
from pathlib import Path
from perimetry.storage import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Locked, match=f"process {holder.pid} is writing to"), lock(tmp_path):
            pytest.fail("two processes hold one lock")
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    with lock(tmp_path):
        pass


def test_stale_temporaries_go_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".tmp-a.12345678").mkdir()
    (tmp_path / ".tmp-a.12345678" / "x").write_text("x")
    (tmp_path / ".tmp-b.12345678").write_text("x")
    (tmp_path / "keep").write_text("x")
    remove_stale(tmp_path)
    remove_stale(tmp_path / "nothing")
    assert [p.name for p in tmp_path.iterdir()] == ["keep"]


WRITER = """
import sys, time
from pathlib import Path
from perimetry.storage import atomic_directory
with atomic_directory(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_writer_left_goes_with_the_next_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "d")], stdout=subprocess.PIPE) for _ in range(2)
    ]
    try:
        assert all(child.stdout is not None for child in children)
        dead, living = (Path(child.stdout.readline().decode().strip()) for child in children if child.stdout)
        os.kill(children[0].pid, signal.SIGKILL)
        children[0].wait()
        assert dead.is_dir()
        (tmp_path / ".tmp-other.12345678").mkdir()
        with atomic_directory(tmp_path / "d") as folder:
            (folder / "a").write_text("x")
        assert not dead.exists()
        assert living.is_dir()
        assert (tmp_path / ".tmp-other.12345678").is_dir(), "that of another folder is not ours to remove"
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_hashes_of_files(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 10**6)
    assert hash_file(tmp_path / "x") == hash_bytes(b"abc" * 10**6)
    assert hash_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
