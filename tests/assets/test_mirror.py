import os
from pathlib import Path

import pytest

from perimetry.assets import mirror
from perimetry.assets.cache import cache_folder, known_hash, offline
from perimetry.assets.mirror import find_copy
from perimetry.errors import MissingFile
from perimetry.storage import hash_bytes

DATA = b"some bytes"


def test_found_by_hash_under_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mirror" / "deep"
    folder.mkdir(parents=True)
    (folder / "same-size").write_bytes(b"other byte")
    (folder / "renamed").write_bytes(DATA)
    monkeypatch.setenv("PERIMETRY_MIRROR", str(tmp_path / "mirror"))
    assert find_copy("file", hash_bytes(DATA), len(DATA)) == folder / "renamed"
    assert find_copy("file", hash_bytes(b""), 0) is None
    assert find_copy("file", hash_bytes(DATA), None) is None
    assert find_copy("renamed", hash_bytes(DATA), None) == folder / "renamed"


def test_only_files_of_the_right_size_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "long").write_bytes(DATA * 2)
    monkeypatch.setenv("PERIMETRY_MIRROR", str(tmp_path))
    monkeypatch.setattr(mirror, "known_hash", lambda path: pytest.fail(f"{path} was hashed"))
    assert find_copy("file", hash_bytes(DATA), len(DATA)) is None


def test_no_mirror_and_a_wrong_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_copy("file", "0", 1) is None
    monkeypatch.setenv("PERIMETRY_MIRROR", str(tmp_path / "none"))
    with pytest.raises(MissingFile, match=r"PERIMETRY_MIRROR names .*none, which is no folder"):
        find_copy("file", "0", 1)


def test_a_remembered_hash_is_forgotten_when_the_file_changes(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"one")
    assert known_hash(file) == hash_bytes(b"one")
    (record,) = (cache / "hashes").iterdir()
    record.write_text(record.read_text().replace(hash_bytes(b"one"), "remembered"))
    assert known_hash(file) == "remembered"
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert known_hash(file) == hash_bytes(b"two")


def test_variables(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("PERIMETRY_CACHE")
    assert cache_folder().name == "perimetry"
    for value, wanted in [("1", True), ("yes", True), ("0", False), ("", False)]:
        monkeypatch.setenv("PERIMETRY_OFFLINE", value)
        assert offline() is wanted
