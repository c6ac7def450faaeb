"""Reading files of strangers: only safetensors and strict JSON, and of these only what cannot hurt.

The safetensors library refuses overlaps, holes, wrong sizes and huge headers itself, but takes duplicate keys (the last wins),
numbers that are not finite, and empty tensors of absurd dimensions; those are refused here.
"""

import json
import math
import re
import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from perimetry.errors import CorruptArtifact, MissingFile, NonFinite
from perimetry.storage import hash_file

__all__ = [
    "Limits",
    "check_header",
    "hash_files",
    "inside",
    "looks_like",
    "read_safetensors",
    "read_strict_json",
    "read_tensors",
    "require_names",
]


class Limits(NamedTuple):
    """What a file may hold. Lower them freely; nothing here reads more."""

    header: int = 16 * 2**20
    """Bytes of a safetensors header."""
    tensors: int = 10_000
    """Tensors of a file."""
    rank: int = 4
    """Dimensions of a tensor."""
    dimension: int = 2**24
    """Longest side of a tensor."""
    json: int = 4 * 2**20
    """Bytes of a JSON file."""
    depth: int = 32
    """Levels of a JSON file."""


LIMITS = Limits()
SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2} | {
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}
"""Bytes of a number, by the name of its type in safetensors."""
MAX_NAME = 512
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def looks_like(path: Path) -> str:
    """What the first bytes say that a file is: `safetensors`, `zip` (npz and newer .pt), `pickle`, `json`, or `unknown`.

    The name says nothing: a pickle called .safetensors is a pickle.
    """
    with open(path, "rb") as handle:
        head = handle.read(16)
    if head[:4] == b"PK\x03\x04":
        return "zip"
    if len(head) > 8 and head[8:9] == b"{" and 2 <= struct.unpack("<Q", head[:8])[0] <= 2**32:
        return "safetensors"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if head.lstrip()[:1] in (b"{", b"["):
        return "json"
    return "unknown"


def _refuse(path: Path, why: str) -> NoReturn:
    raise CorruptArtifact(f"{path} is not safetensors: {why}; fetch or make it again")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object holds the same key twice")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _depth(value: Any, left: int) -> None:
    if left < 0:
        raise ValueError("it is nested too deeply")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _depth(inner, left - 1)


def _parse(data: bytes, depth: int) -> Any:
    """Strict JSON of bytes. Errors: `ValueError`."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _depth(value, depth)
    return value


def read_strict_json(path: Path, limits: Limits = LIMITS) -> Any:
    """A JSON file: no duplicate keys, no NaN, at most `limits.json` bytes and `limits.depth` levels.

    Errors: `MissingFile`, `CorruptArtifact`.
    """
    if not path.is_file():
        raise MissingFile(f"no file {path}; check the path")
    size = path.stat().st_size
    if size > limits.json:
        raise CorruptArtifact(f"{path} holds {size} bytes, at most {limits.json} are read; that is no configuration")
    try:
        return _parse(path.read_bytes(), limits.depth)
    except ValueError as error:
        raise CorruptArtifact(f"{path} is not strict JSON: {error}; fetch or make it again") from error


def _entry(path: Path, name: str, entry: Any, limits: Limits) -> tuple[int, int]:
    """First and last byte of a tensor, when its entry holds together."""
    if len(name) > MAX_NAME or CONTROL.search(name):
        _refuse(path, f"the name {name[:40]!r} is too long or holds control characters")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _refuse(path, f"the entry of {name!r} is not a dtype, a shape and two offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in SIZES:
        _refuse(path, f"{name!r} has the dtype {dtype!r}, which is not read")
    whole = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [None]
    if len(offsets) != 2 or any(type(n) is not int or n < 0 for n in whole):
        _refuse(path, f"{name!r} has a shape or offsets that are not whole numbers from 0")
    if len(shape) > limits.rank or any(n > limits.dimension for n in shape):
        _refuse(path, f"{name!r} has shape {shape}: at most {limits.rank} sides of at most {limits.dimension}")
    if math.prod(shape) * SIZES[dtype] != offsets[1] - offsets[0]:
        _refuse(
            path, f"{name!r} of shape {shape} and {dtype} does not take the {offsets[1] - offsets[0]} bytes it names"
        )
    return offsets[0], offsets[1]


def check_header(path: Path, limits: Limits = LIMITS) -> None:
    """Refuse a file whose safetensors header does not hold together. Errors: `CorruptArtifact`."""
    size = path.stat().st_size
    with open(path, "rb") as handle:
        first = handle.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else -1
        if not 2 <= length <= min(limits.header, size - 8):
            kind = looks_like(path)
            seems = f", it looks like a {kind}" if kind in ("zip", "pickle") else ""
            _refuse(path, f"no header of 2 to {limits.header} bytes at its start{seems}")
        head = handle.read(length)
    try:
        header = _parse(head, 3)
    except ValueError as error:
        _refuse(path, f"its header is not strict JSON: {error}")
    if not isinstance(header, dict):
        _refuse(path, "its header is no object")
    header.pop("__metadata__", None)
    if not 1 <= len(header) <= limits.tensors:
        _refuse(path, f"{len(header)} tensors, 1 to {limits.tensors} are read")
    spans = sorted(_entry(path, name, entry, limits) for name, entry in header.items())
    place = 0
    for start, stop in spans:
        if start != place:
            _refuse(path, "its tensors overlap or leave holes")
        place = stop
    if place != size - 8 - length:
        _refuse(path, f"its header names {place} bytes of data, {size - 8 - length} are there")


def read_safetensors(path: Path, limits: Limits = LIMITS) -> dict[str, Tensor]:
    """The tensors of a file whose header holds together; every number finite.

    Errors: `MissingFile`, `CorruptArtifact`, `NonFinite`.
    """
    if not path.is_file():
        raise MissingFile(f"no {path.name} in {path.parent}; check the path")
    check_header(path, limits)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptArtifact(f"{path} is not safetensors: {error}; fetch or make it again") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(
            torch.isfinite(tensor.float() if tensor.itemsize < 2 else tensor).all()
        ):
            raise NonFinite(f"{path} holds NaN or infinity in {name!r}; finite numbers are wanted; make it again")
    return tensors


def read_tensors(
    path: Path, wanted: Collection[str], optional: Collection[str] = (), limits: Limits = LIMITS
) -> dict[str, Tensor]:
    """The tensors of a file, which are exactly `wanted`, and some of `optional`. Errors: also `CorruptArtifact` for others."""
    return require_names(path, read_safetensors(path, limits), wanted, optional)


def require_names(
    path: Path, tensors: Mapping[str, Tensor], wanted: Collection[str], optional: Collection[str] = ()
) -> dict[str, Tensor]:
    """The tensors, when they are exactly `wanted` and some of `optional`. Errors: `CorruptArtifact`."""
    missing, extra = set(wanted) - tensors.keys(), tensors.keys() - set(wanted) - set(optional)
    if missing or extra:
        raise CorruptArtifact(
            f"{path}: missing {sorted(missing)}, unknown {sorted(extra)}; this kind has exactly {sorted(wanted)}"
            f"{f' and perhaps {sorted(optional)}' if optional else ''}; fetch or make it again"
        )
    return dict(tensors)


def inside(root: Path, name: str) -> Path:
    """The file `name` under `root`. Errors: `CorruptArtifact` for a name that leads elsewhere, by dots or by links."""
    parts = Path(name).parts
    if not name or CONTROL.search(name) or Path(name).is_absolute() or ".." in parts or "\\" in name:
        raise CorruptArtifact(f"{name!r} is no plain file name under {root}; mend the configuration that names it")
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise CorruptArtifact(f"{path} is a link that leaves {root}; put the file itself there")
    return path


def hash_files(*files: Path) -> dict[str, str]:
    """File name -> SHA-256, of those that are there."""
    return {file.name: hash_file(file) for file in files if file.is_file()}
