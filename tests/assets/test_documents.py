import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perimetry.assets.documents import Document, read_jsonl, read_path
from perimetry.assets.jsonl import jsonl_writer
from perimetry.errors import CorruptArtifact, EmptyText, MalformedLine, MissingFile, UsageError

GOOD = '{"id": "a", "text": "one", "label": 3, "title": "T"}\n'


def write(folder: Path, text: str | bytes, name: str = "f.jsonl") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_reads_lines_in_order(tmp_path: Path) -> None:
    file = write(tmp_path, "\ufeff" + GOOD + "\n" + '{"text": "två\\u2028", "id": 7}')
    found = [Document("a", "one", {"label": "3", "title": "T"}), Document("7", "två\u2028", {})]
    assert list(read_path(file)) == found
    packed = write(tmp_path, gzip.compress(file.read_bytes()), "f.jsonl.gz")
    assert list(read_path(packed)) == found
    assert list(read_jsonl(io.BytesIO(file.read_bytes()))) == found


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("not json", "it is not JSON"),
        ('{"id": "b", "text": "x"', "it is not JSON"),
        ('["b", "x"]', "it holds a list, not an object"),
        ('{"text": "x"}', "'id' is None"),
        ('{"id": true, "text": "x"}', "'id' is True"),
        ('{"id": "b"}', "'text' is of type NoneType"),
        ('{"id": "b", "text": 3}', "'text' is of type int"),
        ('{"id": "b", "text": "\\ud800"}', "half of a surrogate pair"),
        ('{"id": "b", "text": "x", "id": "c"}', "the same key twice"),
        ('{"id": "b", "text": "x", "v": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "it is not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, why: str) -> None:
    file = write(tmp_path, GOOD + "\n" + line + "\n")
    with pytest.raises(MalformedLine, match=r"f\.jsonl, line 3: .*mend or remove the line") as caught:
        list(read_path(file))
    assert why in str(caught.value)
    assert caught.value.line == 3
    with pytest.raises(MalformedLine, match="standard input, line 1"):
        list(read_jsonl([line.encode()]))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(MalformedLine, match=r"line 2: it is not UTF-8"):
        list(read_path(write(tmp_path, GOOD.encode() + b'{"id": "\xff"}')))
    with pytest.raises(MalformedLine, match=r"f\.txt, line 2: not UTF-8"):
        list(read_path(write(tmp_path, b"one\n\xff", "f.txt")))


def test_an_empty_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(EmptyText, match=r"f\.jsonl, line 2: the text of 'b' is empty"):
        list(read_path(write(tmp_path, GOOD + '{"id": "b", "text": " \\n"}')))
    with pytest.raises(EmptyText, match=r"f\.txt is empty"):
        list(read_path(write(tmp_path, " \n", "f.txt")))


def test_a_damaged_gzip_file(tmp_path: Path) -> None:
    packed = gzip.compress((GOOD * 3000).encode())
    with pytest.raises(CorruptArtifact, match="no whole gzip file"):
        list(read_path(write(tmp_path, packed[:-20], "f.jsonl.gz")))
    with pytest.raises(CorruptArtifact, match="no whole gzip file"):
        list(read_path(write(tmp_path, b"plain", "f.jsonl.gz")))


def test_folders_and_plain_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    write(tmp_path / "b", "beta", "two.txt")
    write(tmp_path, "\ufeffalpha\n", "a.txt")
    write(tmp_path, GOOD, "c.jsonl")
    write(tmp_path, "skipped", "notes.md")
    assert [(d.id, d.text) for d in read_path(tmp_path)] == [("a", "alpha\n"), ("b/two", "beta"), ("a", "one")]
    assert list(read_path(tmp_path / "a.txt")) == [Document("a", "alpha\n", {})]
    with pytest.raises(UsageError, match=r"notes\.md ends in none of \.jsonl"):
        list(read_path(tmp_path / "notes.md"))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="holds no file with one of the endings"):
        list(read_path(tmp_path))
    for path in (tmp_path / "none", tmp_path / "none.jsonl"):
        with pytest.raises(MissingFile, match="check the path"):
            list(read_path(path))
    with pytest.raises(MissingFile):
        list(read_jsonl(tmp_path / "none.jsonl"))


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), texts), max_size=5))
def test_what_is_written_is_read(tmp_path_factory: Any, pairs: list[tuple[str, str]]) -> None:
    file = tmp_path_factory.mktemp("jsonl") / "x.jsonl.gz"
    twice: list[bytes] = []
    for _ in range(2):
        with jsonl_writer(file) as put:
            for name, text in pairs:
                put({"id": name, "text": text, "k": "v"})
        twice.append(file.read_bytes())
    assert list(read_jsonl(file)) == [Document(n, t, {"k": "v"}) for n, t in pairs]
    assert twice[0] == twice[1]
    assert [json.loads(x)["id"] for x in gzip.decompress(twice[0]).decode().split("\n")[:-1]] == [n for n, _ in pairs]
