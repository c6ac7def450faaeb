"""Templates and files."""

import hashlib
import re
from importlib.resources import files

import pytest
from jinja2 import UndefinedError

from perimetry.monitor.problems import Problem
from perimetry.monitor.web.rendering import PACKAGE, Renderer

ROOT = files(PACKAGE)
TEMPLATES = sorted(entry.name for entry in (ROOT / "templates").iterdir())
SCRIPTS = ("common.js", "prompt.js", "charts.js", "traffic.js")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_files_are_in_the_package_with_their_kinds() -> None:
    found = Renderer().assets
    assert set(found) == {"page.css", "icon.svg", "uplot.js", "uplot.css", *SCRIPTS}
    assert {asset.kind for asset in found.values()} == {
        "text/css; charset=utf-8",
        "text/javascript; charset=utf-8",
        "image/svg+xml; charset=utf-8",
    }
    with pytest.raises(Problem, match="404"):
        Renderer().asset("../pages.py")


def test_what_is_not_ours_is_what_its_note_says() -> None:
    note = read("static/vendor/README.md")
    for name in ("uplot.js", "uplot.css"):
        digest = hashlib.sha256((ROOT / "static" / "vendor" / name).read_bytes()).hexdigest()
        assert f"{digest}  {name}" in note
    assert "MIT" in read("static/vendor/LICENSE")
    assert "v1.6.32" in read("static/vendor/uplot.js")[:80]


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_hold_no_script_no_style_and_no_way_past_the_escapes(name: str) -> None:
    text = read(f"templates/{name}")
    assert not re.search(r"\son\w+\s*=|\sstyle\s*=|<style|javascript:|\|\s*safe|autoescape|tojson", text)
    assert all('src="{{ asset(' in tag for tag in re.findall(r"<script[^>]*>", text))
    assert re.findall(r"(?:src|href)=\"https?:", text) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_make_no_markup_from_text(name: str) -> None:
    text = read(f"static/{name}")
    banned = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|createContextualFragment|srcdoc|Storage"
    assert not re.search(banned, text)
    assert not re.search(r"https?://", text)


def test_our_scripts_stay_small() -> None:
    assert sum(read(f"static/{name}").count("\n") for name in SCRIPTS) <= 380


def test_every_value_is_escaped_and_none_is_forgotten() -> None:
    renderer = Renderer()
    values = {"here": "/login", "csrf": "", "wrong": [], "version": '<b x="1">', "banners": [], "again": False}
    text = bytes(renderer.page("login", values).body).decode()
    assert "&lt;b x=&#34;1&#34;&gt;" in text
    assert "<b x" not in text
    with pytest.raises(UndefinedError, match="again"):
        renderer.page("login", {name: value for name, value in values.items() if name != "again"})


def test_the_address_of_a_file_changes_with_what_it_holds() -> None:
    values = {"here": "/login", "csrf": "", "wrong": [], "version": "1", "banners": [], "again": False}
    text = bytes(Renderer().page("login", values).body).decode()
    assert re.search(r'href="/static/page\.css\?v=[0-9a-f]{12}"', text)
