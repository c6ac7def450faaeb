"""Files of strangers: what lies, is too large, leads elsewhere or would run code is refused."""

import io
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from perimetry.artifact import read_safetensors
from perimetry.errors import CorruptArtifact, MissingFile, NonFinite, PerimetryError, TooLarge, UnsafeFormat
from perimetry.sae.formats.isolated import open_npz, open_pickle, open_yaml
from perimetry.sae.formats.safety import inside, read_strict_json, read_tensors
from perimetry.strict import Limits, looks_like

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def crafted(path: Path, header: Any, data: bytes = bytes(8)) -> Path:
    """A file with any header: an object, or text as it is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.ones(2, dtype=torch.bfloat16)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"k": "v"})
    read = read_safetensors(tmp_path / "x.safetensors")
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


LIES: list[tuple[Any, bytes, str]] = [
    (
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        bytes(8),
        "the same key twice",
    ),
    ({"a": {**ENTRY, "shape": [3]}}, bytes(8), r"'a' of shape \[3\] and F32 does not take the 8 bytes it names"),
    ({"a": {**ENTRY, "shape": [2**63, 2]}}, bytes(8), "at most 4 sides of at most"),
    ({"a": {**ENTRY, "shape": [0, 2**40], "data_offsets": [0, 0]}}, b"", "at most 4 sides of at most"),
    ({"a": {**ENTRY, "shape": [1, 1, 1, 1, 2]}}, bytes(8), "at most 4 sides"),
    ({"a": {**ENTRY, "shape": [-2]}}, bytes(8), "not whole numbers from 0"),
    ({"a": {**ENTRY, "shape": [True, 2]}}, bytes(8), "not whole numbers from 0"),
    ({"a": {**ENTRY, "shape": "2"}}, bytes(8), "not whole numbers from 0"),
    ({"a": {**ENTRY, "data_offsets": [0]}}, bytes(8), "not whole numbers from 0"),
    ({"a": {**ENTRY, "dtype": "F33"}}, bytes(8), "has the dtype 'F33', which is not read"),
    ({"a": {"dtype": "F32"}}, bytes(8), "the entry of 'a' is not a dtype, a shape and two offsets"),
    ({"a\u0000b": ENTRY}, bytes(8), "control characters"),
    ({"a" * 600: ENTRY}, bytes(8), "is too long"),
    ({"a": ENTRY}, bytes(16), "names 8 bytes of data, 16 are there"),
    ({"a": ENTRY}, bytes(4), "names 8 bytes of data, 4 are there"),
    ({"a": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12), "overlap or leave holes"),
    ({"a": ENTRY, "b": ENTRY}, bytes(8), "overlap or leave holes"),
    ({}, b"", "0 tensors, 1 to 10000 are read"),
    ([1], bytes(8), "its header is no object"),
    (b"{nonsense}", bytes(8), "its header is not strict JSON"),
    (b'{"a": NaN}', bytes(8), "NaN is not JSON"),
]


@pytest.mark.parametrize(("header", "data", "message"), LIES)
def test_headers_that_lie_are_refused(header: Any, data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match=message):
        read_safetensors(crafted(tmp_path / "x.safetensors", header, data))


def test_sizes_are_limited(tmp_path: Path) -> None:
    many = {f"t{i}": {**ENTRY, "data_offsets": [8 * i, 8 * i + 8]} for i in range(5)}
    file = crafted(tmp_path / "x.safetensors", many, bytes(40))
    with pytest.raises(CorruptArtifact, match="5 tensors, 1 to 4 are read"):
        read_safetensors(file, Limits(tensors=4))
    with pytest.raises(CorruptArtifact, match="no header of 2 to 10 bytes"):
        read_safetensors(file, Limits(header=10))
    huge = tmp_path / "huge.safetensors"
    huge.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(CorruptArtifact, match="no header of 2 to 16777216 bytes at its start"):
        read_safetensors(huge)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    save_file({"w": torch.tensor([1.0, torch.nan])}, tmp_path / "x.safetensors")
    with pytest.raises(NonFinite, match="NaN or infinity in 'w'"):
        read_safetensors(tmp_path / "x.safetensors")


def test_names_of_tensors_are_exact(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "x.safetensors")
    assert set(read_tensors(tmp_path / "x.safetensors", {"a"}, {"b"})) == {"a", "b"}
    with pytest.raises(CorruptArtifact, match=r"missing \['c'\], unknown \['b'\]; this kind has exactly \['a', 'c'\]"):
        read_tensors(tmp_path / "x.safetensors", {"a", "c"})


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200))
def test_random_bytes_end_in_a_readable_error(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("r") / "x.safetensors"
    file.write_bytes(data)
    with pytest.raises(PerimetryError):
        read_safetensors(file)


def test_a_pickle_by_another_name_fails_on_its_content(tmp_path: Path) -> None:
    torch.save({"W_enc": torch.ones(2, 2)}, tmp_path / "x.safetensors")
    assert looks_like(tmp_path / "x.safetensors") == "zip"
    with pytest.raises(UnsafeFormat, match="it looks like a zip"):
        read_safetensors(tmp_path / "x.safetensors")


JSONS: list[tuple[str, str]] = [
    ('{"a": 1, "a": 2}', "the same key twice"),
    ('{"a": NaN}', "NaN is not JSON"),
    ('{"a": -Infinity}', "-Infinity is not JSON"),
    ("[" * 40 + "]" * 40, "nested too deeply"),
    ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
    ('{"a": 1', "not strict JSON"),
    ("\xff", "not strict JSON"),
]


@pytest.mark.parametrize(("text", "message"), JSONS)
def test_json_that_is_not_strict_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptArtifact, match=message):
        read_strict_json(tmp_path / "c.json")


def test_json_is_limited(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps("x" * 5_000_000))
    with pytest.raises(CorruptArtifact, match="holds 5000002 bytes, at most 4194304 are read"):
        read_strict_json(tmp_path / "c.json")
    with pytest.raises(MissingFile, match="no file"):
        read_strict_json(tmp_path / "no.json")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "a\x00b", "a\\b", "a\nb"])
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match="is no plain file name under"):
        inside(tmp_path, name)


def test_links_that_leave_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_text("x")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "own").symlink_to(root / "file")
    with pytest.raises(CorruptArtifact, match="is a link that leaves"):
        inside(root, "link")
    assert inside(root, "own") == root / "own"
    assert inside(root, "sub/file") == root / "sub" / "file"


def test_npz_goes_through_its_own_process(tmp_path: Path) -> None:
    arrays = {"W_enc": np.ones((3, 4), np.float32), "b_enc": np.arange(4.0)}
    np.savez(tmp_path / "p.npz", **arrays)  # pyright: ignore[reportArgumentType]
    read = open_npz(tmp_path / "p.npz", {"w_enc", "B_ENC"})
    assert all(np.array_equal(read[name].numpy(), arrays[name]) for name in arrays)
    with pytest.raises(CorruptArtifact, match=r"it holds \['b_enc'\], wanted are \['W_enc'\]"):
        open_npz(tmp_path / "p.npz", {"W_enc"})


def test_npz_with_objects_or_a_bomb_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "o.npz", W_enc=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UnsafeFormat, match=r"cannot be opened as npz: .*allow_pickle"):
        open_npz(tmp_path / "o.npz", {"W_enc"})
    np.savez_compressed(tmp_path / "b.npz", W_enc=np.zeros(10_000_000, np.float32))
    with pytest.raises(TooLarge, match=r"it unpacks to 40000128 bytes, more than .* 20 times what is packed"):
        open_npz(tmp_path / "b.npz", {"W_enc"})
    np.savez(tmp_path / "n.npz", W_enc=np.array([np.nan], np.float32))
    with pytest.raises(NonFinite):
        open_npz(tmp_path / "n.npz", {"W_enc"})


YAMLS: list[tuple[str, str]] = [
    ("a: &x [1]\nb: *x\n", "it holds an alias"),
    ("a: 1\na: 2\n", "a mapping holds the same key twice"),
    ("a: !!python/object/apply:os.system [echo]\n", "ConstructorError"),
    ("a: .nan\n", "Out of range float values"),
    ("- " * 40 + "x\n", "nested more than 32 levels"),
]


@pytest.mark.parametrize(("text", "message"), YAMLS)
def test_yaml_that_is_not_plain_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(CorruptArtifact, match=message):
        open_yaml(tmp_path / "c.yaml")


def test_plain_yaml_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("a: 1\nb: {c: [x, 2.5, null]}\n")
    assert open_yaml(tmp_path / "c.yaml") == {"a": 1, "b": {"c": ["x", 2.5, None]}}


def test_a_pickle_needs_the_flag(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(
        UnsafeFormat, match=r"can run code when it is opened; safetensors are wanted; .* add --unsafe-pickle"
    ):
        open_pickle(tmp_path / "a.pt", unsafe_pickle=False)
    with pytest.raises(MissingFile):
        open_pickle(tmp_path / "b.pt", unsafe_pickle=True)


def test_tensors_and_plain_values_of_a_pickle(tmp_path: Path) -> None:
    w = torch.randn(3, 4)
    torch.save({"ae": {"w": w.T, "k": torch.tensor(5)}, "cfg": {"act": "TopK", "n": 3}}, tmp_path / "a.pt")
    read = open_pickle(tmp_path / "a.pt", unsafe_pickle=True)
    assert set(read.tensors) == {"ae.w", "ae.k"}
    assert torch.equal(read.tensors["ae.w"], w.T)
    assert read.plain == {"ae": {}, "cfg": {"act": "TopK", "n": 3}}


class Touch:
    """Runs a command when it is unpickled by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_would_run_code_does_not(tmp_path: Path) -> None:
    import pickle

    (tmp_path / "e.pt").write_bytes(pickle.dumps(Touch(tmp_path / "owned")))
    torch.save({"w": torch.ones(2), "x": Touch(tmp_path / "owned")}, tmp_path / "f.pt")
    for name in ("e.pt", "f.pt"):
        with pytest.raises(
            UnsafeFormat, match="holds more than tensors and plain values, which would have to run code"
        ):
            open_pickle(tmp_path / name, unsafe_pickle=True)
    assert not (tmp_path / "owned").exists()


def test_a_broken_pickle_is_a_readable_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(100)}, buffer)
    (tmp_path / "a.pt").write_bytes(buffer.getvalue()[:-200])
    with pytest.raises(CorruptArtifact, match="cannot be opened as pickle"):
        open_pickle(tmp_path / "a.pt", unsafe_pickle=True)
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    with pytest.raises(TooLarge, match="it unpacks to 10000000 bytes"):
        open_pickle(tmp_path / "bomb.pt", unsafe_pickle=True)
