"""Frames come out as they went in, however the bytes were cut; anything else is refused."""

import array
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.monitor import frames
from perimetry.monitor.frames import BadFrame, Decoder, Frame, encode

VALUES = {
    "B": st.integers(0, 255),
    "i": st.integers(-(2**31), 2**31 - 1),
    "f": st.floats(width=32),
    "d": st.floats(),
}
ARRAYS = st.dictionaries(
    st.text(max_size=8),
    st.sampled_from("Bifd").flatmap(
        lambda code: st.lists(VALUES[code], max_size=20).map(lambda v: array.array(code, v))
    ),
    max_size=4,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
HEADERS = st.dictionaries(st.text(max_size=8).filter(lambda key: key != "arrays"), JSON, max_size=4)


def same(one: Frame, header: dict[str, Any], arrays: dict[str, Any]) -> bool:
    """NaN included, hence by bytes."""
    return one.header == header and {k: (v.typecode, v.tobytes()) for k, v in one.arrays.items()} == {
        k: (v.typecode, v.tobytes()) for k, v in arrays.items()
    }


@settings(deadline=None)
@given(st.lists(st.tuples(HEADERS, ARRAYS), max_size=3), st.data())
def test_frames_survive_any_cut(sent: list[tuple[dict[str, Any], dict[str, Any]]], data: st.DataObject) -> None:
    stream = b"".join(encode(header, arrays) for header, arrays in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder, found = Decoder(), []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += decoder.feed(stream[start:stop])
    assert len(found) == len(sent)
    assert all(same(frame, *wanted) for frame, wanted in zip(found, sent, strict=True))
    assert decoder.wanted == 8


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_frames_or_a_typed_refusal(data: bytes) -> None:
    decoder = Decoder()
    try:
        found = list(decoder.feed(data))
    except BadFrame:
        return
    assert sum(len(encode(f.header, f.arrays)) > 0 for f in found) == len(found)


@settings(deadline=None)
@given(HEADERS, ARRAYS, st.data())
def test_a_changed_byte_never_gives_another_kind_of_error(
    header: dict[str, Any], arrays: dict[str, Any], data: st.DataObject
) -> None:
    stream = bytearray(encode(header, arrays))
    place = data.draw(st.integers(0, len(stream) - 1))
    stream[place] ^= data.draw(st.integers(1, 255))
    decoder = Decoder()
    try:
        found = list(decoder.feed(bytes(stream)))
    except BadFrame:
        with pytest.raises(BadFrame, match="nothing more is read"):
            list(decoder.feed(encode({"kind": "later"})))
    else:
        assert len(found) <= 1


def test_a_size_beyond_the_bound_is_refused_before_anything_of_it_is_held() -> None:
    with pytest.raises(BadFrame, match="is larger than"):
        list(Decoder().feed(struct.pack("!II", 2**31, 0)))
    with pytest.raises(BadFrame, match="is larger than"):
        list(Decoder().feed(struct.pack("!II", 2, frames.MAX_BODY + 1)))


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"[]", b""),
        (b"{}", b""),
        (b"nonsense", b""),
        (b'{"arrays":[],"x":NaN}', b""),
        (b'{"arrays":[["a","d",1]]}', b"1234567"),
        (b'{"arrays":[["a","B",-1]]}', b""),
        (b'{"arrays":[["a","u",1]]}', b"1234"),
        (b'{"arrays":[["a","B",true]]}', b"1"),
        (b'{"arrays":[["a","B",1],["a","B",1]]}', b"12"),
        (b'{"arrays":[]}', b"1"),
        (b'{"arrays":["abc"]}', b""),
        (b"[" * 50_000, b""),
    ],
)
def test_what_is_no_frame_is_refused(head: bytes, body: bytes) -> None:
    with pytest.raises(BadFrame):
        list(Decoder().feed(struct.pack("!II", len(head), len(body)) + head + body))


def test_numbers_that_are_not_finite_travel_in_arrays_only() -> None:
    with pytest.raises(BadFrame, match="not finite"):
        encode({"kind": "x", "score": float("nan")})
    frame = next(Decoder().feed(encode({"kind": "x"}, {"score": array.array("d", [float("nan")])})))
    assert frame.kind == "x"
    assert frame.arrays["score"][0] != frame.arrays["score"][0]


def test_arrays_of_another_type_and_frames_too_large_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadFrame, match="do not travel"):
        encode({}, {"a": array.array("q", [1])})
    monkeypatch.setattr(frames, "MAX_BODY", 3)
    with pytest.raises(BadFrame, match="is larger than"):
        encode({}, {"a": array.array("i", [1])})


def test_the_wire_is_as_documented() -> None:
    """By hand: sizes, header, body."""
    stream = encode({"kind": "k"}, {"a": array.array("i", [1, 256])})
    head = json.dumps({"kind": "k", "arrays": [["a", "i", 2]]}, separators=(",", ":")).encode()
    assert stream == struct.pack("!II", len(head), 8) + head + b"\x01\x00\x00\x00\x00\x01\x00\x00"
