"""Artifacts: whole or refused."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perimetry.artifact import MANIFEST, read_artifact, require_replaceable, write_artifact
from perimetry.errors import ArtifactError, CorruptArtifact, Incompatible, MissingFile, NonFinite, StorageError
from perimetry.storage import hash_file, hash_json

TENSORS = {"weights": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}}
DOCUMENTS = {"about": {"name": "é", "list": [1, None, 2.5]}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "x", "thing", TENSORS, DOCUMENTS)
    return tmp_path / "x"


def change_manifest(path: Path, **values: object) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps(manifest | values))


def test_what_was_written_comes_back(path: Path, tmp_path: Path) -> None:
    found = read_artifact(path, "thing")
    assert (found.path, found.kind) == (path, "thing")
    assert torch.equal(found.tensors["weights"]["a"], TENSORS["weights"]["a"])
    assert found.tensors["weights"]["b"].dtype == torch.int64
    assert found.documents == DOCUMENTS
    assert write_artifact(tmp_path / "y", "thing", TENSORS, DOCUMENTS) == found.digest, "the place does not count"
    other = write_artifact(tmp_path / "z", "thing", TENSORS, {"about": {}})
    assert other != found.digest


@given(
    place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), name=st.sampled_from(["weights", "about", "man"])
)
def test_any_changed_bit_is_noticed(
    place: float, bit: int, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("flipped") / "x"
    write_artifact(folder, "thing", TENSORS, DOCUMENTS)
    file = next(p for p in folder.iterdir() if p.name.startswith(name))
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    file.write_bytes(data)
    try:
        found = read_artifact(folder, "thing")
    except (ArtifactError, NonFinite):
        return
    # White space of the manifest may change without a change of meaning.
    assert name == "man"
    assert found.documents == DOCUMENTS


@pytest.mark.parametrize("name", ["weights.safetensors", "about.json", MANIFEST])
def test_a_missing_file_is_noticed(path: Path, name: str) -> None:
    (path / name).unlink()
    with pytest.raises(CorruptArtifact, match=name.replace(".", r"\.")):
        read_artifact(path, "thing")


def test_a_link_is_no_file_of_ours(path: Path, tmp_path: Path) -> None:
    (path / "about.json").rename(tmp_path / "elsewhere.json")
    (path / "about.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(CorruptArtifact, match=r"lacks 'about\.json'"):
        read_artifact(path, "thing")


@pytest.mark.parametrize("name", ["../outside.json", "/etc/hostname", "sub/x.json"])
def test_a_manifest_cannot_reach_outside(path: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside.json").write_text("{}")
    files = json.loads((path / MANIFEST).read_text())["files"] | {name: "0" * 64}
    change_manifest(path, files=files, digest=hash_json(files))
    with pytest.raises(CorruptArtifact, match="lacks"):
        read_artifact(path, "thing")


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"kind": "other"}, Incompatible, "is a 'other', a 'thing' was wanted"),
        ({"schema": 2}, Incompatible, "has schema 2, this version reads 1"),
        ({"files": []}, CorruptArtifact, "is no manifest"),
        ({"digest": "0" * 64}, CorruptArtifact, "has a digest that its files do not give"),
    ],
)
def test_a_manifest_that_says_otherwise(
    path: Path, values: dict[str, object], error: type[Exception], message: str
) -> None:
    change_manifest(path, **values)
    with pytest.raises(error, match=message):
        read_artifact(path, "thing")


def test_only_safetensors_and_json_are_parsed(path: Path) -> None:
    (path / "code.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    files = json.loads((path / MANIFEST).read_text())["files"] | {"code.pkl": hash_file(path / "code.pkl")}
    change_manifest(path, files=files, digest=hash_json(files))
    with pytest.raises(CorruptArtifact, match="is neither safetensors nor JSON"):
        read_artifact(path, "thing")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(NonFinite, match="holds NaN or infinity in 'a'"):
        write_artifact(tmp_path / "x", "thing", {"w": {"a": torch.tensor([1.0, value])}}, {})
    assert list(tmp_path.iterdir()) == []


def test_views_and_gradients_are_written_plainly(tmp_path: Path) -> None:
    base = torch.randn(4, 4, requires_grad=True)
    write_artifact(tmp_path / "x", "thing", {"w": {"t": base.T, "row": base[0]}}, {})
    found = read_artifact(tmp_path / "x", "thing").tensors["w"]
    assert torch.equal(found["t"], base.detach().T)
    assert torch.equal(found["row"], base.detach()[0])


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"no thing at .*; give the folder that holds manifest.json"):
        read_artifact(tmp_path / "x", "thing")


def test_only_its_like_is_replaced(path: Path, tmp_path: Path) -> None:
    require_replaceable(path, "thing")
    require_replaceable(tmp_path / "new", "thing")
    (tmp_path / "empty").mkdir()
    require_replaceable(tmp_path / "empty", "thing")
    (path / MANIFEST).write_text("{torn")
    require_replaceable(path, "thing")
    (path / "notes.txt").write_text("mine")
    for refused in (path, tmp_path, path / "notes.txt"):
        with pytest.raises(StorageError, match="exists and is no thing; nothing there was touched"):
            write_artifact(refused, "thing", TENSORS, DOCUMENTS)
    assert (path / "notes.txt").read_text() == "mine"
    write_artifact(tmp_path / "other", "other", {}, {})
    with pytest.raises(StorageError, match="exists and is no thing"):
        write_artifact(tmp_path / "other", "thing", TENSORS, DOCUMENTS)
