"""Articles of the English Wikipedia of March 2006, out of enwik8: the first 100 MB of its XML dump."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable
from xml.etree.ElementTree import ParseError, XMLPullParser

from perimetry.assets.jsonl import jsonl_writer
from perimetry.assets.spec import Inputs
from perimetry.assets.wikitext import clean, is_redirect
from perimetry.errors import CorruptArtifact

__all__ = ["Page", "Readable", "prepare_archive", "read_pages", "write_articles"]

BLOCK = 1 << 20
MEMBER = "data/enwik8.gz"
WHOLE = 100_000_000
NAMESPACES = {
    *("Media", "Special", "Talk", "User", "User talk", "Wikipedia", "Wikipedia talk", "Image", "Image talk"),
    *("MediaWiki", "MediaWiki talk", "Template", "Template talk", "Help", "Help talk", "Category", "Category talk"),
    *("Portal", "Portal talk"),
}


@runtime_checkable
class Readable(Protocol):
    """Anything that gives bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


class Page(NamedTuple):
    """One page of the dump."""

    id: str
    """Its number in Wikipedia."""
    title: str
    """Its title."""
    markup: str
    """Its text, in MediaWiki mark-up."""


def read_pages(stream: Readable) -> Iterator[Page]:
    """Whole pages of a MediaWiki XML dump, read as a stream; a page that is cut off at the end is left out.

    Errors: `CorruptArtifact` when it is no XML.
    """
    parser = XMLPullParser(["start", "end"])
    root: Any = None
    event: str
    element: Any
    try:
        while block := stream.read(BLOCK):
            parser.feed(block)
            for event, element in parser.read_events():  # pyright: ignore[reportAssignmentType]
                if root is None:
                    root = element
                # the name without its namespace, which changes with the version of the dump
                if event == "end" and element.tag.rpartition("}")[2] == "page":
                    found = {child.tag.rpartition("}")[2]: child for child in element.iter()}
                    first_id = next(child for child in element if child.tag.rpartition("}")[2] == "id")
                    yield Page(first_id.text or "", found["title"].text or "", found["text"].text or "")
                    root.clear()
    except (ParseError, StopIteration, KeyError) as error:
        raise CorruptArtifact(f"the dump is no MediaWiki XML: {error}; get the file again") from error


class _Counted(Readable):
    """A stream that reports how many bytes were read of it."""

    def __init__(self, stream: Readable) -> None:
        self.stream = stream
        self.done = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self.stream.read(size)
        self.done += len(data)
        return data


def write_articles(stream: Readable, out: Path, *, progress: bool) -> int:
    """Clean every article of a dump into one gzipped JSONL file of `id`, `title`, `text`; how many there are."""
    from rich.console import Console
    from rich.progress import Progress

    counted = _Counted(stream)
    written = 0
    with Progress(console=Console(stderr=True), disable=not progress) as bar, jsonl_writer(out) as write:
        task = bar.add_task("cleaning articles", total=WHOLE)
        for page in read_pages(counted):
            bar.update(task, completed=counted.done)
            if (":" in page.title and page.title.partition(":")[0] in NAMESPACES) or is_redirect(page.markup):
                continue
            text = clean(page.markup)
            if text:
                write({"id": page.id, "title": page.title, "text": text})
                written += 1
    return written


def prepare_archive(inputs: Inputs, out: Path) -> None:
    """Clean the dump inside the source archive. Errors: `CorruptArtifact`."""
    assert inputs.raw is not None
    with tarfile.open(inputs.raw, "r:gz") as archive:
        for entry in archive:
            handle = archive.extractfile(entry) if entry.name.endswith("/" + MEMBER) else None
            if handle is not None:
                break
        else:
            raise CorruptArtifact(f"{inputs.raw.name} holds no {MEMBER}; get the file again")
        try:
            with gzip.open(handle, "rb") as stream:
                write_articles(stream, out / "articles.jsonl.gz", progress=inputs.progress)
        except (EOFError, zlib.error) as error:
            raise CorruptArtifact(f"{MEMBER} in {inputs.raw.name} is damaged: {error}; get it again") from error
