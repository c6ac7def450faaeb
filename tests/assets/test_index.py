import json
from pathlib import Path

import httpx
import pytest
from tests.assets.server import Server

from perimetry.assets.index import find_on_index, parse_links
from perimetry.assets.pipconfig import PipSettings
from perimetry.errors import DownloadFailed

SHA, OTHER = "a" * 64, "b" * 64
NAME = "my_pkg-1.0-py3-none-any.whl"


def settings(*indexes: str, links: tuple[str, ...] = ()) -> PipSettings:
    return PipSettings(indexes, links, None, None)


def find(place: PipSettings, filename: str = NAME) -> tuple[str, ...]:
    with httpx.Client() as client:
        return find_on_index(client, place, "My.Pkg", filename, SHA)


def test_html_of_pep_503(server: Server) -> None:
    page = f"""<!DOCTYPE html><html><body>
      <a href="../../files/my_pkg-0.9-py3-none-any.whl#sha256={OTHER}">old</a><br/>
      <a data-requires-python="&gt;=3.8" href="../../files/{NAME}#sha256={SHA}">{NAME}</a></body></html>"""
    server.add("/simple/my-pkg/", page.encode(), "text/html")
    assert find(settings(f"{server.url}/simple")) == (f"{server.url}/files/{NAME}",)
    assert "vnd.pypi.simple.v1+json" in server.headers[0]["Accept"]


def test_json_of_pep_691(server: Server) -> None:
    files = [
        {"filename": "x", "url": "https://files.example/x", "hashes": {}},
        {"filename": NAME, "url": f"/f/{NAME}", "hashes": {"sha256": SHA}},
    ]
    body = json.dumps({"meta": {"api-version": "1.1"}, "name": "my-pkg", "files": files}).encode()
    server.add("/simple/my-pkg/", body, "application/vnd.pypi.simple.v1+json")
    assert find(settings(f"{server.url}/simple/")) == (f"{server.url}/f/{NAME}",)


def test_a_base_element_and_escaped_names() -> None:
    page = '<base href="https://cdn.example/all/"><a href="my%2Bpkg-1.0.tar.gz">x</a><a>no target</a>'
    (link,) = parse_links(page, "text/html", "https://host.example/simple/")
    assert link == ("my+pkg-1.0.tar.gz", "https://cdn.example/all/my%2Bpkg-1.0.tar.gz", None)


def test_folders_and_file_indexes(tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / NAME).write_bytes(b"x")
    page = tmp_path / "simple" / "my-pkg" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="../../files/{NAME}">f</a>')
    found = find(settings((tmp_path / "simple").as_uri(), links=(str(links), links.as_uri())))
    assert found == ((links / NAME).as_uri(), (tmp_path / "files" / NAME).as_uri())


def test_names_are_compared_as_indexes_do(server: Server) -> None:
    server.add("/simple/my-pkg/", b'<a href="/f/My-Pkg-1.0.tar.gz">f</a>', "text/html")
    assert find(settings(f"{server.url}/simple"), "my_pkg-1.0.tar.gz") == (f"{server.url}/f/My-Pkg-1.0.tar.gz",)


def test_the_login_of_the_index_goes_to_its_own_files_only(server: Server) -> None:
    page = f'<a href="/f/{NAME}">a</a><a href="https://cdn.example/{NAME}">b</a>'
    server.add("/simple/my-pkg/", page.encode(), "text/html")
    index = server.url.replace("http://", "http://me:pw@") + "/simple"
    host = server.url.removeprefix("http://")
    assert find(settings(index)) == (f"http://me:pw@{host}/f/{NAME}", f"https://cdn.example/{NAME}")


def test_every_index_that_was_asked_is_named(server: Server) -> None:
    server.add("/one/my-pkg/", b'<a href="f-2.tar.gz">f</a>', "text/html")
    server.add("/two/my-pkg/", f'<a href="/{NAME}#sha256={OTHER}">f</a>'.encode(), "text/html")
    server.add("/bad/my-pkg/", b"[]", "application/json")
    names = ("one", "two", "three", "bad")
    with pytest.raises(DownloadFailed) as caught:
        find(settings(*(f"{server.url}/{n}" for n in names)))
    message = str(caught.value)
    assert f"/one/my-pkg/: it lists no {NAME}" in message
    assert "with another SHA-256" in message
    assert "/three/my-pkg/: HTTP 404" in message
    assert "/bad/my-pkg/: the JSON has no list 'files'" in message
    assert "pip config list" in message


def test_no_index_at_all() -> None:
    with pytest.raises(DownloadFailed, match="no index is configured"):
        find(settings())
