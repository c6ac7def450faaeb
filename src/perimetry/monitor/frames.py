"""Frames between the service and its worker: a JSON header and raw arrays over a stream of bytes. No code travels.

A frame is two sizes (header, body; four bytes each, the most significant first), the header, the body. The header is an object; under `arrays`
it says the name, the type and the count of each array of the body, in order.
"""

import array
import json
import struct
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, final

from perimetry.errors import PerimetryError

__all__ = ["MAX_BODY", "MAX_HEADER", "BadFrame", "Decoder", "Frame", "encode"]

MAX_HEADER: Final = 2**24
"""Bytes of a header at most."""
MAX_BODY: Final = 2**28
"""Bytes of all arrays of a frame at most."""
_SIZES: Final = struct.Struct("!II")
_TYPES: Final = frozenset("Bifd")
"""Bytes, 32-bit integers, 32-bit and 64-bit floats, as in `array`; little-endian on the wire."""


class BadFrame(PerimetryError):
    """What came over the socket is no frame; the other side is not to be believed any more."""


class Frame(NamedTuple):
    """One message."""

    header: dict[str, Any]
    """What it says; `kind` says what it is."""
    arrays: dict[str, "array.array[Any]"]
    """Its arrays by name."""

    @property
    def kind(self) -> str:
        """What the message is."""
        return str(self.header.get("kind", ""))


def _as_wire(values: "array.array[Any]") -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def encode(header: Mapping[str, Any], arrays: Mapping[str, "array.array[Any]"] | None = None) -> bytes:
    """The bytes of a frame. Errors: `BadFrame` for one that no decoder would take."""
    arrays = arrays or {}
    odd = sorted({a.typecode for a in arrays.values()} - _TYPES)
    if odd:
        raise BadFrame(f"arrays of type {', '.join(odd)} do not travel; wanted one of {', '.join(sorted(_TYPES))}")
    listed = [[name, values.typecode, len(values)] for name, values in arrays.items()]
    try:
        head = json.dumps({**header, "arrays": listed}, allow_nan=False, separators=(",", ":")).encode()
    except ValueError as error:
        raise BadFrame("a header holds a number that is not finite; such numbers travel in arrays") from error
    body = b"".join(_as_wire(values) for values in arrays.values())
    if len(head) > MAX_HEADER or len(body) > MAX_BODY:
        raise BadFrame(f"a frame of {len(head)} and {len(body)} bytes is larger than {MAX_HEADER} and {MAX_BODY}")
    return b"".join((_SIZES.pack(len(head), len(body)), head, body))


@final
class Decoder:
    """Frames out of pieces of bytes, however they were cut. After a `BadFrame` nothing more comes out of it."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._bad = False

    @property
    def wanted(self) -> int:
        """Bytes that are missing to the next whole frame, as far as is known."""
        if len(self._held) < _SIZES.size:
            return _SIZES.size - len(self._held)
        return max(0, _SIZES.size + sum(_SIZES.unpack_from(self._held)) - len(self._held))

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now. Errors: `BadFrame`."""
        self._held += data
        while len(self._held) >= _SIZES.size:
            if self._bad:
                raise BadFrame("the stream was not one of frames before; nothing more is read from it")
            head, body = _SIZES.unpack_from(self._held)
            if head > MAX_HEADER or body > MAX_BODY:
                self._bad = True
                raise BadFrame(f"a frame of {head} and {body} bytes is larger than {MAX_HEADER} and {MAX_BODY}")
            end = _SIZES.size + head + body
            if len(self._held) < end:
                return
            whole = bytes(self._held[_SIZES.size : end])
            del self._held[:end]
            try:
                frame = _taken_apart(whole[:head], whole[head:])
            except BadFrame:
                self._bad = True
                raise
            yield frame


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _taken_apart(head: bytes, body: bytes) -> Frame:
    try:
        header = json.loads(head, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadFrame("the header of a frame is not JSON") from error
    if not isinstance(header, dict) or not isinstance(header.get("arrays"), list):
        raise BadFrame("the header of a frame is no object with a list of arrays")
    arrays: dict[str, array.array[Any]] = {}
    start = 0
    for entry in header.pop("arrays"):
        name, code, count = _entry(entry)
        values: array.array[Any] = array.array(code)
        stop = start + count * values.itemsize
        if stop > len(body) or name in arrays:
            raise BadFrame("the arrays of a frame are not those that its header says")
        values.frombytes(body[start:stop])
        if sys.byteorder == "big":
            values.byteswap()
        arrays[name], start = values, stop
    if start != len(body):
        raise BadFrame("a frame has more bytes than its header says")
    return Frame(header, arrays)


def _entry(entry: Any) -> tuple[str, str, int]:
    if isinstance(entry, list) and len(entry) == 3:
        name, code, count = entry
        if isinstance(name, str) and isinstance(code, str) and code in _TYPES and type(count) is int and count >= 0:
            return name, code, count
    raise BadFrame("the header of a frame describes an array that is none")
