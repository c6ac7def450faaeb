"""What a file of unknown origin may hold: the rules of JSON and of the head of safetensors, checked before anything is used.

The safetensors library refuses overlaps, holes, wrong sizes and huge headers itself, but takes duplicate keys (the last wins),
long blank headers, names that are paths, and empty tensors of absurd dimensions: its headers are read here first.
"""

import json
import math
import os
import re
import stat
import struct
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from perimetry.errors import (
    BadHeader,
    BadLayout,
    BadPath,
    BadShape,
    CorruptArtifact,
    MissingFile,
    TooLarge,
    UnsafeFormat,
)

__all__ = [
    "CONTROL",
    "LIMITS",
    "MAX_DEPTH",
    "OWN",
    "Limits",
    "check_header",
    "looks_like",
    "parse_json",
    "plain_size",
    "require_size",
]

MAX_DEPTH = 32
MAX_VALUES = 4_000_000  # of a JSON text, where an empty list is two bytes, and seventy in memory
HALF = re.compile(rb"\\u[dD][89a-fA-F]")
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
HEADER_VALUES = 2_000_000
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
STEPS = re.compile(r"(^|[/\\])\.\.?([/\\]|$)|^[/\\]")
"""In the name of a tensor: a way out of a folder, for those who make files of names."""
MAGIC = {b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x93NUMPY": "npy", b"\x1f\x8b": "gzip"} | {
    b"\x80" + bytes([n]): "pickle" for n in range(2, 6)
}
UNSAFE = ("zip", "pickle", "npy")


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
    fewest: int = 1
    """Tensors that there must be."""
    file: int = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    """Bytes of a file: the memory of the machine."""


LIMITS = Limits()
OWN = Limits(dimension=2**31 - 1, fewest=0)
"""What we write ourselves may be a long list, or an empty one."""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object holds the same key twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _walk(value: Any, depth: int) -> None:
    level = [value]
    while level:
        if depth < 0:
            raise ValueError("it is nested too deeply")
        below: list[Any] = []
        for found in level:
            if isinstance(found, dict):
                below.extend(found.values())
            elif isinstance(found, list):
                below.extend(found)
            elif isinstance(found, float) and math.isinf(found):
                raise ValueError("a number is beyond the largest")
        level, depth = below, depth - 1


def parse_json(data: bytes, *, depth: int = MAX_DEPTH, values: int = MAX_VALUES) -> Any:
    """Strict JSON: UTF-8, no key twice, no NaN or infinity, no half characters, few levels and values. Errors: `ValueError`."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") > values:
        raise ValueError(f"it holds more than {values} values")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _walk(value, depth)
    if HALF.search(data):
        json.dumps(value, ensure_ascii=False).encode()  # half of a pair is no character, and cannot be encoded
    return value


def plain_size(path: Path) -> int:
    """Bytes of a plain file. Errors: `MissingFile` (a folder, too), `BadPath` for a pipe, a device or a socket."""
    try:
        about = path.stat()
    except (OSError, ValueError) as error:
        raise MissingFile(f"no file {path}; check the path") from error
    if not stat.S_ISREG(about.st_mode):
        kind, error = ("folder", MissingFile) if stat.S_ISDIR(about.st_mode) else ("pipe or a device", BadPath)
        raise error(f"no file {path}: it is a {kind}; check the path")
    return about.st_size


def require_size(path: Path, limits: Limits = LIMITS) -> int:
    """Bytes of a plain file that is not too large. Errors: those of `plain_size`, `TooLarge`."""
    size = plain_size(path)
    if size > limits.file:
        raise TooLarge(f"{path} has {size} bytes, and at most {limits.file} are read here; use a larger machine")
    return size


def looks_like(path: Path) -> str:
    """What the first bytes say that a file is: `safetensors`, `zip` (npz and newer .pt), `pickle`, `npy`, `gzip`, `json`, `unknown`.

    The name says nothing: a pickle called .safetensors is a pickle.
    """
    with open(path, "rb") as handle:
        head = handle.read(16)
    if len(head) > 8 and head[8:9] == b"{" and 2 <= struct.unpack("<Q", head[:8])[0] <= 2**32:
        return "safetensors"
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    return "json" if head.lstrip()[:1] in (b"{", b"[") else "unknown"


def _refuse(kind: type[CorruptArtifact], path: Path, why: str) -> NoReturn:
    raise kind(f"{path} is not safetensors: {why}; fetch or make it again")


def _entry(path: Path, name: str, entry: Any, limits: Limits) -> tuple[int, int]:
    """First and last byte of a tensor, when its entry holds together."""
    if len(name) > MAX_NAME or CONTROL.search(name):
        _refuse(BadShape, path, f"the name {name[:40]!r} is too long or holds control characters")
    if STEPS.search(name):
        _refuse(BadShape, path, f"the name {name[:40]!r} is a path, which no tensor is called by")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _refuse(BadHeader, path, f"the entry of {name!r} is not a dtype, a shape and two offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        _refuse(BadShape, path, f"{name!r} has the dtype {str(dtype)[:40]!r}, which is not read")
    whole = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [None]
    if any(type(n) is not int or n < 0 for n in whole) or len(offsets) != 2:
        _refuse(BadHeader, path, f"{name!r} has a shape or offsets that are not whole numbers from 0")
    longest = LIMITS.dimension if 0 in shape else limits.dimension
    if len(shape) > limits.rank or any(n > longest for n in shape):
        _refuse(
            BadShape, path, f"{name!r} has shape {str(shape)[:80]}: at most {limits.rank} sides of at most {longest}"
        )
    if math.prod(shape) * SIZES[dtype] != offsets[1] - offsets[0]:
        taken = offsets[1] - offsets[0]
        _refuse(BadLayout, path, f"{name!r} of shape {shape} and {dtype} does not take the {taken} bytes it names")
    return offsets[0], offsets[1]


def check_header(path: Path, limits: Limits = LIMITS) -> None:
    """Refuse a file whose safetensors header does not hold together, before a byte of its data is read.

    Errors: `MissingFile`, `BadPath`, `TooLarge`, `UnsafeFormat`, `BadHeader`, `BadShape`, `BadLayout`.
    """
    size = require_size(path, limits)
    with open(path, "rb") as handle:
        first = handle.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else -1
        if not 2 <= length <= min(limits.header, size - 8):
            kind = looks_like(path)
            seems = f", it looks like a {kind}" if kind in (*UNSAFE, "gzip") else ""
            error = UnsafeFormat if kind in UNSAFE else BadHeader
            _refuse(error, path, f"no header of 2 to {limits.header} bytes at its start{seems}")
        head = handle.read(length)
    try:
        header = parse_json(head, depth=3, values=HEADER_VALUES)
    except ValueError as error:
        _refuse(BadHeader, path, f"its header is not strict JSON: {error}")
    if not isinstance(header, dict):
        _refuse(BadHeader, path, "its header is no object")
    about = header.pop("__metadata__", {})
    if not isinstance(about, dict) or not all(isinstance(text, str) for text in about.values()):
        _refuse(BadHeader, path, "its metadata are not texts")
    if not limits.fewest <= len(header) <= limits.tensors:
        _refuse(BadHeader, path, f"{len(header)} tensors, {limits.fewest} to {limits.tensors} are read")
    spans = sorted(_entry(path, name, entry, limits) for name, entry in header.items())
    place = 0
    for start, stop in spans:
        if start != place:
            _refuse(BadLayout, path, "its tensors overlap or leave holes")
        place = stop
    if place != size - 8 - length:
        _refuse(BadLayout, path, f"its header names {place} bytes of data, {size - 8 - length} are there")
