"""Find a file on the package index that pip is configured with: JSON (PEP 691), HTML (PEP 503), `file://`, find-links."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

import httpx

from perimetry.assets.pipconfig import PipSettings
from perimetry.assets.transport import lend_credentials, redact
from perimetry.errors import DownloadFailed

__all__ = ["Link", "find_on_index", "parse_links"]

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


class Link(NamedTuple):
    """One file of an index page."""

    filename: str
    """Its name, without folders."""
    url: str
    """Its full address, without a fragment."""
    sha256: str | None
    """The hash that the index states, where it states one."""


class _Anchors(HTMLParser):
    """Collects the targets of `<a href>` and the base of the page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.targets: list[str] = []
        self.base: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href")
        if target is None:
            return
        if tag == "a":
            self.targets.append(target)
        elif tag == "base" and self.base is None:
            self.base = target


def _link(target: str, base: str, sha256: str | None = None) -> Link:
    url, fragment = urldefrag(urljoin(base, target))
    if sha256 is None and fragment.startswith("sha256="):
        sha256 = fragment.removeprefix("sha256=").lower()
    return Link(unquote(urlsplit(url).path).rsplit("/", 1)[-1], url, sha256)


def parse_links(body: str, content_type: str, base: str) -> list[Link]:
    """The files of an index page. Errors: `ValueError` when it is JSON by its type but not by its bytes.

    >>> parse_links('<a href="../f-1.0.tar.gz#sha256=AB">f</a>', "text/html", "https://host.example/simple/f/")
    [Link(filename='f-1.0.tar.gz', url='https://host.example/simple/f-1.0.tar.gz', sha256='ab')]
    """
    if "json" not in content_type:
        parser = _Anchors()
        parser.feed(body)
        start = urljoin(base, parser.base) if parser.base else base
        return [_link(target, start) for target in parser.targets]
    page: Any = json.loads(body)
    files = page.get("files") if isinstance(page, dict) else None
    if not isinstance(files, list):
        raise ValueError("the JSON has no list 'files'")
    return [
        _link(str(f["url"]), base, (f.get("hashes") or {}).get("sha256"))
        for f in files
        if isinstance(f, dict) and "url" in f
    ]


def _local_page(folder: Path) -> list[Link]:
    """The files that a folder offers: those in it, and those that its `index.html` links to."""
    page = folder / "index.html"
    base = folder.absolute().as_uri() + "/"
    found = parse_links(page.read_text(encoding="utf-8"), "text/html", base) if page.is_file() else []
    return found + [Link(f.name, f.absolute().as_uri(), None) for f in sorted(folder.iterdir()) if f.is_file()]


def _page(client: httpx.Client, url: str) -> list[Link]:
    """The files of a page, a folder, or a `file://` address of either. Errors: `ValueError` with the reason."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https"):
        try:
            response = client.get(url, headers={"Accept": ACCEPT})
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if response.status_code != httpx.codes.OK:
            raise ValueError(f"HTTP {response.status_code} {response.reason_phrase}")
        return parse_links(response.text, response.headers.get("Content-Type", ""), str(response.url))
    place = Path(url2pathname(parts.path)) if parts.scheme == "file" else Path(url).expanduser()
    if place.is_dir():
        return _local_page(place)
    if place.is_file():
        return parse_links(place.read_text(encoding="utf-8"), "text/html", place.absolute().as_uri())
    raise ValueError("no such folder")


def _fold(filename: str) -> str:
    return re.sub(r"[-_.]+", "-", filename).lower()


def find_on_index(
    client: httpx.Client, settings: PipSettings, project: str, filename: str, sha256: str
) -> tuple[str, ...]:
    """Addresses of `filename` on the configured indexes and find-links, local ones first.

    Names are compared as indexes do (case, `-`, `_` and `.` alike); a file whose stated hash is another is left out.
    Errors: `DownloadFailed` naming every index that was asked.
    """
    page = re.sub(r"[-_.]+", "-", project).lower()
    places = [*settings.find_links, *(f"{index.rstrip('/')}/{page}/" for index in settings.indexes)]
    found: list[str] = []
    notes: list[str] = []
    for place in places:
        try:
            links = _page(client, place)
        except (ValueError, OSError) as error:
            notes.append(f"{redact(place)}: {error}")
            continue
        named = [link for link in links if _fold(link.filename) == _fold(filename)]
        found += [lend_credentials(k.url, place) for k in named if k.sha256 in (None, sha256)]
        if not named:
            notes.append(f"{redact(place)}: it lists no {filename}")
        elif all(k.sha256 not in (None, sha256) for k in named):
            notes.append(f"{redact(place)}: it lists {filename} with another SHA-256")
    if found:
        return tuple(sorted(dict.fromkeys(found), key=lambda url: urlsplit(url).scheme != "file"))
    asked = "; ".join(notes) or "no index is configured"
    raise DownloadFailed(
        f"no package index offers {filename} ({asked}); check `pip config list` (or PIP_INDEX_URL), or put a copy in a "
        "folder named by PERIMETRY_MIRROR"
    )
