"""What a hostile file does: spoil one file of a folder that was whole. Every payload is a harmless canary."""

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from perimetry.storage import hash_file, hash_json

Attack = Callable[[Path], None]
CANARY = "PERIMETRY_CANARY"
"""An environment variable that code from a hostile file would set."""


class Canary:
    """Runs a harmless command when a careless reader unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.putenv, (CANARY, "1")


def reseal(folder: Path) -> None:
    """Make the manifest of a folder agree with what lies there now, as an attacker would."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["files"] = {name: hash_file(folder / name) for name in manifest["files"]}
    for shard in manifest.get("shards", []):
        shard |= {"sha256": manifest["files"][shard["file"]], "bytes": (folder / shard["file"]).stat().st_size}
    manifest["digest"] = hash_json(manifest["files"])
    file.write_text(json.dumps(manifest))


def parts(file: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(file: Path, header: Any, data: bytes) -> None:
    """A file with any header: an object, or bytes as they are."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(head)) + head + data)


def first(header: dict[str, Any]) -> str:
    return next(name for name in header if name != "__metadata__")


def entry(file: Path, **changes: Any) -> None:
    """Change the entry of the first tensor."""
    header, data = parts(file)
    header[first(header)] |= changes
    join(file, header, data)


def tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors; the metadata stay."""
    about = parts(file)[0].get("__metadata__")
    found = load_file(file)
    change(found)
    save_file({k: v.contiguous() for k, v in found.items()}, file, about)


def fill(file: Path, value: float) -> None:
    def change(found: dict[str, torch.Tensor]) -> None:
        floats = [t for t in found.values() if t.is_floating_point() and t.numel()]
        floats[0].view(-1)[-1] = value

    tensors(file, change)


def wider(found: dict[str, torch.Tensor]) -> None:
    """One more column or entry in the largest tensor."""
    name = max(found, key=lambda n: found[n].numel())
    found[name] = torch.cat([found[name], found[name][..., :1]], -1)


def fewer(found: dict[str, torch.Tensor]) -> None:
    del found[max(found, key=lambda n: found[n].numel())]


def integers(found: dict[str, torch.Tensor]) -> None:
    name = max((n for n in found if found[n].is_floating_point()), key=lambda n: found[n].numel())
    found[name] = found[name].to(torch.int64)


def duplicate(file: Path) -> None:
    header, data = parts(file)
    name = first(header)
    text = json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}"
    join(file, text.encode(), data)


def overlap(file: Path) -> None:
    header, data = parts(file)
    join(file, header | {"again": dict(header[first(header)])}, data)


def gap(file: Path) -> None:
    header, data = parts(file)
    for name, about in header.items():
        if name != "__metadata__":
            about["data_offsets"] = [n + 4 for n in about["data_offsets"]]
    join(file, header, bytes(4) + data)


def rename(file: Path, name: str) -> None:
    header, data = parts(file)
    old = first(header)
    join(file, {name if k == old else k: v for k, v in header.items()}, data)


def torch_zip() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2), "x": Canary()}, buffer)
    return buffer.getvalue()


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", bytes(20_000_000))
    return buffer.getvalue()


def objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Canary()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def replace(make: Callable[[Path], object]) -> Attack:
    """Something else than a plain file in the place of the file."""

    def attack(file: Path) -> None:
        file.unlink()
        make(file)

    return attack


def sparse(file: Path) -> None:
    """A hole of 4 TiB behind a header that claims it (2^24 x 65536 numbers of 4 bytes)."""
    head = json.dumps({"W": {"dtype": "F32", "shape": [2**24, 2**16], "data_offsets": [0, 2**42]}}).encode()
    file.write_bytes(struct.pack("<Q", len(head)) + head)
    os.truncate(file, 8 + len(head) + 2**42)


def elsewhere(file: Path) -> None:
    """The file itself, moved out of the folder, and a link to it."""
    moved = file.parent.parent / f"outside-{file.name}"
    file.rename(moved)
    file.symlink_to(moved)


PLAIN = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
TENSOR_FILES: dict[str, tuple[str, Attack]] = {
    "pickle": ("UnsafeFormat", lambda f: f.write_bytes(pickle.dumps(Canary()))),
    "torch-zip": ("UnsafeFormat", lambda f: f.write_bytes(torch_zip())),
    "zip-bomb": ("UnsafeFormat", lambda f: f.write_bytes(zip_bomb())),
    "object-npy": ("UnsafeFormat", lambda f: f.write_bytes(objects())),
    "gzip": ("BadHeader", lambda f: f.write_bytes(gzip.compress(bytes(100_000)))),
    "empty": ("BadHeader", lambda f: f.write_bytes(b"")),
    "blank-header": ("BadHeader", lambda f: join(f, json.dumps({"a": PLAIN}).encode() + b" " * 17 * 2**20, b"")),
    "many-tensors": ("BadHeader", lambda f: join(f, {f"t{i}": PLAIN for i in range(10_001)}, b"")),
    "false-length": ("BadHeader", lambda f: f.write_bytes(struct.pack("<Q", 2**62) + f.read_bytes()[8:])),
    "duplicate": ("BadHeader", duplicate),
    "nan-literal": ("BadHeader", lambda f: join(f, b'{"a": NaN}', b"")),
    "deep-header": ("BadHeader", lambda f: join(f, b"[" * 100_000 + b"]" * 100_000, b"")),
    "wide-header": ("BadHeader", lambda f: join(f, b'{"a":[' + b"[]," * 3_000_000 + b"[]]}", b"")),
    "no-object": ("BadHeader", lambda f: join(f, [1, 2], b"")),
    "utf16-header": ("BadHeader", lambda f: join(f, '{"a": 1}'.encode("utf-16"), b"")),
    "negative-shape": ("BadHeader", lambda f: entry(f, shape=[-1, -1])),
    "boolean-shape": ("BadHeader", lambda f: entry(f, shape=[True])),
    "overlap": ("BadLayout", overlap),
    "gap": ("BadLayout", gap),
    "trailing": ("BadLayout", lambda f: f.write_bytes(f.read_bytes() + bytes(8))),
    "truncated": ("BadLayout", lambda f: f.write_bytes(f.read_bytes()[:-4])),
    "lying-shape": ("BadLayout", lambda f: entry(f, shape=[3, 3, 3, 3])),
    "overflow": ("BadShape", lambda f: entry(f, shape=[2**63, 2])),
    "astronomical": ("BadShape", lambda f: join(f, {"a": PLAIN | {"shape": [0, 2**40]}}, b"")),
    "unknown-dtype": ("BadShape", lambda f: entry(f, dtype="F33")),
    "path-name": ("BadShape", lambda f: rename(f, "../../x")),
    "control-name": ("BadShape", lambda f: rename(f, "a\x00b")),
    "nan": ("NonFinite", lambda f: fill(f, float("nan"))),
    "infinity": ("NonFinite", lambda f: fill(f, float("inf"))),
    "wider": ("ArtifactError", lambda f: tensors(f, wider)),
    "fewer": ("ArtifactError", lambda f: tensors(f, fewer)),
    "integers": ("ArtifactError", lambda f: tensors(f, integers)),
    "pipe": ("BadPath", replace(os.mkfifo)),
    "device": ("BadPath", replace(lambda f: f.symlink_to("/dev/zero"))),
    "sparse": ("TooLarge", sparse),
}
"""Name -> error, and what is done to a safetensors file."""
LINK = ("BadPath", elsewhere)
"""Refused in folders with a manifest; the cache of the hub is made of links."""
UNSEALED = {"pipe", "device", "sparse", "link", "deep-pipe"}
"""Where the manifest is not made to agree: there is nothing to hash, or too much."""


def document(file: Path, text: str | bytes) -> None:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())


def with_value(literal: str) -> Attack:
    """The object of the file with one more key, whose value is written as it is here."""

    def attack(file: Path) -> None:
        text = file.read_text().strip()
        assert text.startswith("{")
        document(file, "{" + f'"strange": {literal}, ' + text[1:])

    return attack


def twice(file: Path) -> None:
    value = json.loads(file.read_text())
    key = next(iter(value))
    document(file, "{" + f"{json.dumps(key)}: 1, " + json.dumps(value)[1:])


JSON_FILES: dict[str, tuple[str, Attack]] = {
    "empty": ("BadHeader", lambda f: document(f, "")),
    "torn": ("BadHeader", lambda f: document(f, f.read_bytes()[:-3])),
    "nan": ("BadHeader", with_value("NaN")),
    "infinity": ("BadHeader", with_value("-Infinity")),
    "beyond": ("BadHeader", with_value("1e999")),
    "half-character": ("BadHeader", with_value('"\\ud800"')),
    "duplicate": ("BadHeader", twice),
    "deep": ("BadHeader", with_value("[" * 40 + "]" * 40)),
    "bottomless": ("BadHeader", with_value("[" * 200_000 + "]" * 200_000)),
    "wide": ("BadHeader", with_value("[" + "[]," * 5_000_000 + "[]]")),
    "utf16": ("BadHeader", lambda f: document(f, f.read_text().encode("utf-16"))),
    "latin1": ("BadHeader", with_value('"\xff"')),
    "pickle": ("BadHeader", lambda f: document(f, pickle.dumps(Canary()))),
    "list": ("PerimetryError", lambda f: document(f, "[1, 2]")),
    "null": ("PerimetryError", lambda f: document(f, "null")),
    "hollow": ("PerimetryError", lambda f: document(f, "{}")),
    "numbers": (
        "PerimetryError",
        lambda f: document(f, json.dumps(dict.fromkeys(json.loads(f.read_text()), 7))),
    ),
    "pipe": ("BadPath", replace(os.mkfifo)),
    "device": ("BadPath", replace(lambda f: f.symlink_to("/dev/zero"))),
}
"""Name -> error, and what is done to a JSON file that holds an object."""
JSON_FILES["latin1"] = ("BadHeader", lambda f: document(f, b'{"strange": "\xff"}'))
