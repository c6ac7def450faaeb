"""Texts as a stream of documents: prepared assets, JSONL, plain files, folders of them."""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

from perimetry.errors import CorruptArtifact, EmptyText, MalformedLine, MissingFile, TooLarge, UsageError

__all__ = ["JSONL_SUFFIXES", "TEXT_SUFFIXES", "Document", "read_jsonl", "read_path"]

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz")
TEXT_SUFFIXES = (*JSONL_SUFFIXES, ".txt")
MAX_LINE = 64 * 2**20
UNPACKED, RATIO = 64 * 2**20, 200
"""Bytes that a packed file may always unpack to, and how many times its size above that."""
SURROGATES = re.compile("[\ud800-\udfff]")


class Document(NamedTuple):
    """One text."""

    id: str
    """Its name in its source."""
    text: str
    """The text; never empty."""
    meta: dict[str, str]
    """What else the source says of it: `title`, `dataset`, `label`, `family` ..."""


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("the object holds the same key twice")
    return found


def _document(name: str, number: int, line: str) -> Document:
    try:
        value = json.loads(line, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedLine(name, number, f"it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise MalformedLine(name, number, f"it holds a {type(value).__name__}, not an object")
    key, text = value.pop("id", None), value.pop("text", None)
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise MalformedLine(name, number, f"'id' is {key!r}, a text or a whole number is wanted")
    if not isinstance(text, str):
        raise MalformedLine(name, number, f"'text' is of type {type(text).__name__}, a text is wanted")
    if SURROGATES.search(f"{key}{text}"):
        raise MalformedLine(name, number, "'id' or 'text' holds half of a surrogate pair, which is no character")
    if not text.strip():
        raise EmptyText(f"{name}, line {number}: the text of {str(key)!r} is empty; give it characters or remove it")
    meta = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in value.items()}
    return Document(str(key), text, meta)


def _bounded(handle: BufferedIOBase, path: Path) -> Iterator[bytes]:
    """The lines of a file, none of them huge; a packed one may not unpack to far more than text does."""
    most = max(UNPACKED, RATIO * path.stat().st_size)
    total = 0
    while line := handle.readline(MAX_LINE + 1):
        total += len(line)
        if len(line) > MAX_LINE or total > most:
            raise TooLarge(
                f"{path} holds a line of more than {MAX_LINE} bytes, or unpacks to more than {RATIO} times its size; cut the text "
                "into documents, or get the file again"
            )
        yield line


def _lines(handle: Iterable[bytes], name: str) -> Iterator[Document]:
    for number, line in enumerate(handle, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise MalformedLine(name, number, f"it is not UTF-8 ({error.reason})") from error
        if text.strip():
            yield _document(name, number, text)


def read_jsonl(source: Path | Iterable[bytes]) -> Iterator[Document]:
    """Documents of a JSONL file (gzipped or not) or of its lines, as standard input gives them.

    One object a line with `id` and `text`; other keys become `meta`; blank lines are skipped. Errors: `MissingFile`,
    `MalformedLine` naming the number, `EmptyText`, `CorruptArtifact` for a damaged gzip file, `TooLarge` for a line of
    more than 64 MiB or a file that unpacks to far more than text does.
    """
    if not isinstance(source, Path):
        yield from _lines(source, "standard input")
        return
    if not source.is_file():
        raise MissingFile(f"no file {source}; check the path")
    try:
        with gzip.open(source, "rb") if source.suffix == ".gz" else open(source, "rb") as handle:
            yield from _lines(_bounded(cast(BufferedIOBase, handle), source), str(source))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CorruptArtifact(f"{source} is no whole gzip file: {error}; get the file again") from error


def _plain(path: Path, name: str) -> Document:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedLine(str(path), path.read_bytes().count(b"\n", 0, error.start) + 1, "not UTF-8") from error
    if not text.strip():
        raise EmptyText(f"{path} is empty; give it characters or remove it")
    return Document(name, text, {})


def read_path(path: Path) -> Iterator[Document]:
    """Documents of a `.jsonl`, `.jsonl.gz` or `.txt` file (one document), or of a folder that holds such files.

    A folder is read in the order of names, subfolders included; the id of a `.txt` is its path there without the
    suffix. Errors: `MissingFile`, `MalformedLine`, `EmptyText`, `UsageError` for another ending.
    """
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(TEXT_SUFFIXES))
        if not files:
            raise MissingFile(f"{path} holds no file with one of the endings {', '.join(TEXT_SUFFIXES)}; give another")
        for file in files:
            if file.suffix == ".txt":
                yield _plain(file, file.relative_to(path).with_suffix("").as_posix())
            else:
                yield from read_jsonl(file)
    elif not path.is_file():
        raise MissingFile(f"no file or folder {path}; check the path")
    elif path.name.endswith(JSONL_SUFFIXES):
        yield from read_jsonl(path)
    elif path.suffix == ".txt":
        yield _plain(path, path.stem)
    else:
        raise UsageError(f"{path.name} ends in none of {', '.join(TEXT_SUFFIXES)}; rename or convert it")
