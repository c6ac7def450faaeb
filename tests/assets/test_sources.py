import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from tests.assets.server import Server

from perimetry.assets import ASSETS, read_texts, resolve_model
from perimetry.assets.documents import Document
from perimetry.assets.jsonl import jsonl_writer
from perimetry.assets.sources import find_model, find_texts
from perimetry.assets.spec import AssetSpec, Inputs
from perimetry.errors import CorruptArtifact, HashMismatch, MissingFile, UnknownName, UsageError
from perimetry.storage import hash_bytes, hash_json


def write_text(inputs: Inputs, out: Path) -> None:
    for part in ("one", "deep/two"):
        with jsonl_writer(out / f"{part}.jsonl.gz") as write:
            write({"id": part, "text": "t", "k": "v"})


def write_model(inputs: Inputs, out: Path) -> None:
    (out / "config.json").write_text("{}")


TABLE = {
    "words": AssetSpec("words", "text", "s", "l", None, write_text, 1),
    "net": AssetSpec("net", "model", "s", "l", None, write_model, 1),
}
LINE = b'{"id": "a", "text": "x"}\n'


def test_assets_and_their_parts() -> None:
    assert [d.id for d in find_texts("words", TABLE)] == ["deep/two", "one"]
    assert list(find_texts("words/deep/two", TABLE)) == [Document("deep/two", "t", {"k": "v"})]
    found = find_model("net", TABLE)
    assert (found.kind, Path(found.location).name) == ("asset", "v1")
    assert found.revision == find_model(found.location, TABLE).revision == hash_json({"config.json": hash_bytes(b"{}")})


def test_unknown_names_and_the_wrong_kind() -> None:
    with pytest.raises(UnknownName, match="unknown text 'wikipdia'; the nearest name is 'wikipedia'"):
        read_texts("wikipdia")
    with pytest.raises(UnknownName, match="unknown model 'stories15'; the nearest name is 'stories15m'"):
        resolve_model("stories15")
    with pytest.raises(UnknownName, match="unknown part of words 'on'; the nearest name is 'one'"):
        find_texts("words/on", TABLE)
    with pytest.raises(UsageError, match="'net' is a model, a text was wanted; texts: words"):
        find_texts("net", TABLE)
    with pytest.raises(UsageError, match="'words' is a text, a model was wanted; models: net"):
        find_model("words", TABLE)


def test_local_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f.jsonl").write_bytes(LINE)
    assert [d.id for d in read_texts(tmp_path / "f.jsonl")] == ["a"]
    monkeypatch.chdir(tmp_path)
    assert [d.id for d in read_texts("f.jsonl")] == ["a"]
    for missing in ("g.jsonl", "./wikipedia", Path("wikipedia"), "no/such"):
        with pytest.raises(MissingFile, match="no file or folder"):
            read_texts(missing)


def test_local_models_and_hub_ids(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(MissingFile, match=r"holds no config\.json"):
        resolve_model(str(folder))
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"1")
    one = resolve_model(str(folder))
    assert (one.kind, one.location) == ("folder", str(folder))
    (folder / "README.md").write_text("not part of the model")
    assert resolve_model(str(folder)).revision == one.revision
    (folder / "model.safetensors").write_bytes(b"2")
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert resolve_model(str(folder)).revision != one.revision
    assert resolve_model("owner/name.v-1") == ("owner/name.v-1", "hub", "main")
    assert resolve_model("owner/name@refs/pr/1") == ("owner/name", "hub", "refs/pr/1")
    for missing in ("./owner/name", str(tmp_path / "none"), "a/b/c"):
        with pytest.raises(MissingFile, match="no folder"):
            resolve_model(missing)


def test_an_address_needs_a_hash(server: Server) -> None:
    url = server.add("/x.jsonl", LINE)
    for bad in (url, url + "#sha256=12", url + "#md5=1"):
        with pytest.raises(UsageError, match=r"x\.jsonl has no hash; .*x\.jsonl#sha256=<64 hex digits>"):
            read_texts(bad)
    assert [d.id for d in read_texts(f"{url}#sha256={hash_bytes(LINE).upper()}")] == ["a"]
    read_texts(f"{url}#sha256={hash_bytes(LINE)}")
    assert len(server.requests) == 1
    with pytest.raises(HashMismatch):
        read_texts(f"{url}#sha256={'0' * 64}")
    with pytest.raises(UsageError, match=r"x\.csv ends in none of \.jsonl"):
        read_texts(f"{server.url}/x.csv#sha256={'0' * 64}")


FILES = {
    "m/config.json": b"{}",
    "m/model.safetensors": b"weights",
    "m/pytorch_model.bin": b"pickle",
    "m/modeling.py": b"code",
    "m/deep/x.json": b"{}",
    "other.txt": b"x",
}


def packed(files: dict[str, bytes], kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as box:
            for name, data in files.items():
                box.writestr(name, data)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w:gz") as box:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            box.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("m/link.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        box.addfile(link)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_model_behind_an_address(server: Server, kind: str) -> None:
    data = packed(FILES, kind)
    text = f"{server.add(f'/m.{kind}', data)}#sha256={hash_bytes(data)}"
    found = resolve_model(text)
    names = {p.name for p in Path(found.location).iterdir()}
    assert names == {"config.json", "model.safetensors", "manifest.json"}
    assert found.kind == "url"
    assert resolve_model(text) == found
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"a/config.json": b"{}", "b/config.json": b"{}"}, "holds 2 files named config.json"),
        ({"x": b""}, "holds 0 files named config.json"),
        ({"config.json": b"{}", "m.bin": b""}, "holds no safetensors"),
        ({"config.json": b"{}", "m.safetensors": b"", "..": b""}, "no file of a model"),
    ],
)
def test_archives_that_are_no_model(server: Server, files: dict[str, bytes], why: str) -> None:
    data = packed(files, "zip")
    with pytest.raises(CorruptArtifact, match=why):
        resolve_model(f"{server.add('/m.zip', data)}#sha256={hash_bytes(data)}")


def test_bytes_that_are_no_archive(server: Server) -> None:
    for name in ("m.zip", "m.tar.gz"):
        with pytest.raises(CorruptArtifact, match="is no archive of a model"):
            resolve_model(f"{server.add('/' + name, b'junk')}#sha256={hash_bytes(b'junk')}")
    with pytest.raises(UsageError, match=r"m\.rar ends in none of \.tar\.gz"):
        resolve_model(f"{server.url}/m.rar#sha256={'0' * 64}")


def test_the_table_is_whole() -> None:
    for name, spec in ASSETS.items():
        assert spec.name == name
        assert set(spec.needs) <= set(ASSETS)
        assert (spec.raw is None) == bool(spec.needs)
        assert spec.licence
        if spec.raw:
            assert len(spec.raw.sha256) == 64
