"""What files of unknown origin may hold; headers and their lies are in tests/sae/formats/test_safety.py and tests/reliability."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perimetry.errors import BadPath, MissingFile, TooLarge
from perimetry.strict import LIMITS, looks_like, parse_json, plain_size, require_size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1e999}', "beyond the largest"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": 1, "a": 2}', "the same key twice"),
        (b'["\\ud800"]', "surrogates not allowed"),
        ('["a"]'.encode("utf-16"), "utf-8"),
        (b"[[[1]]]", "nested too deeply"),
        (b"[1, 2, 3, 4, 5, 6]", "more than 5 values"),
    ],
)
def test_json_that_is_not_strict_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text, depth=2, values=5)


def test_a_whole_pair_is_a_character() -> None:
    assert parse_json(b'["\\ud83d\\ude00"]') == ["\U0001f600"]


@given(st.binary(max_size=40))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    try:
        parse_json(data)
    except ValueError:
        return
    assert data.strip(), "nothing is no value"


def test_what_is_no_plain_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(BadPath, match="it is a pipe or a device"):
            plain_size(path)
    for path in (tmp_path, tmp_path / "gone", tmp_path / "a\0b"):
        with pytest.raises(MissingFile):
            plain_size(path)
    (tmp_path / "file").write_bytes(b"12345")
    assert plain_size(tmp_path / "file") == 5
    assert require_size(tmp_path / "file", LIMITS._replace(file=5)) == 5
    with pytest.raises(TooLarge, match="has 5 bytes, and at most 4 are read"):
        require_size(tmp_path / "file", LIMITS._replace(file=4))


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"PK\x03\x04", "zip"),
        (b"\x80\x04\x95", "pickle"),
        (b"\x93NUMPY", "npy"),
        (b"\x1f\x8b", "gzip"),
        (b"\x10\0\0\0\0\0\0\0{", "safetensors"),
        (b"  [1]", "json"),
        (b"", "unknown"),
    ],
)
def test_the_first_bytes_say_what_a_file_is(head: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(head)
    assert looks_like(tmp_path / "x.txt") == kind
