import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from perimetry.assets.spec import Inputs
from perimetry.assets.wikipedia import Page, prepare_archive, read_pages
from perimetry.errors import CorruptArtifact

PROSE = "The [[cat]] is a small animal that sleeps for much of the day and hunts at night. " * 5
HEAD = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.3/" version="0.3">\n<siteinfo><base>b</base></siteinfo>\n'
)


def page(number: int, title: str, text: str) -> str:
    return (
        f"<page><title>{title}</title><id>{number}</id><revision><id>9{number}</id>"
        f"<contributor><id>8</id></contributor><text xml:space='preserve'>{text}</text></revision></page>\n"
    )


DUMP = (
    HEAD
    + page(1, "Cat", PROSE)
    + page(2, "Kitten", "#REDIRECT [[Cat]]")
    + page(3, "User:Tom", PROSE)
    + page(4, "Stub", "Too short.")
    + page(5, "Zoo: a novel", PROSE.replace("cat", "lion"))
    + page(6, "Cut off", PROSE)[:-60]
).encode()


def archive(folder: Path, dump: bytes, member: str = "p-1/data/enwik8.gz") -> Path:
    file = folder / "p.tar.gz"
    with tarfile.open(file, "w:gz") as box:
        entry = tarfile.TarInfo(member)
        entry.size = len(dump)
        box.addfile(entry, io.BytesIO(dump))
    return file


def prepare(tmp_path: Path, raw: Path, name: str = "out") -> Path:
    out = tmp_path / name
    out.mkdir()
    prepare_archive(Inputs(raw, {}, tmp_path), out)
    return out / "articles.jsonl.gz"


def test_whole_pages_only() -> None:
    pages = list(read_pages(io.BytesIO(DUMP)))
    assert [(p.id, p.title) for p in pages][-1] == ("5", "Zoo: a novel")
    assert pages[1] == Page("2", "Kitten", "#REDIRECT [[Cat]]")
    assert len(pages) == 5


def test_articles_only_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    raw = archive(tmp_path, gzip.compress(DUMP, mtime=0))
    file = prepare(tmp_path, raw)
    rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    assert [(r["id"], r["title"]) for r in rows] == [("1", "Cat"), ("5", "Zoo: a novel")]
    assert rows[0]["text"] == PROSE.replace("[[", "").replace("]]", "").strip()
    assert prepare(tmp_path, raw, "again").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("dump", "member", "why"),
    [
        (gzip.compress(b"<a></b>", mtime=0), "p/data/enwik8.gz", "no MediaWiki XML"),
        (gzip.compress(b"<a><page><x/></page>", mtime=0), "p/data/enwik8.gz", "no MediaWiki XML"),
        (gzip.compress(DUMP * 40, mtime=0)[:-30], "p/data/enwik8.gz", "damaged|no MediaWiki XML"),
        (b"", "p/data/other.gz", "holds no data/enwik8.gz"),
    ],
)
def test_damage_is_told(tmp_path: Path, dump: bytes, member: str, why: str) -> None:
    with pytest.raises(CorruptArtifact, match=why):
        prepare(tmp_path, archive(tmp_path, dump, member))
