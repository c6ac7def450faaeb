"""Gzipped JSONL with the same bytes for the same records."""

import contextlib
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["jsonl_writer"]


@contextlib.contextmanager
def jsonl_writer(path: Path) -> Iterator[Callable[[dict[str, str]], None]]:
    """Yield a function that appends one record to a new gzipped JSONL file; no time or name enters the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as file:

        def write(record: dict[str, str]) -> None:
            file.write((json.dumps(record, ensure_ascii=False) + "\n").encode())

        yield write
