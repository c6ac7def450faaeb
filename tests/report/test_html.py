"""The whole page: complete, self-contained, escaped, accessible."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from perimetry.errors import ConfigError
from perimetry.report import build_report
from perimetry.report.style import SCRIPT, STYLE
from report.parsing import Page
from report.samples import GAINS, results

EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    return results((0, 1), 40)


@pytest.fixture(scope="module")
def source(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "sub" / "report.html"
    assert build_report(json.loads(json.dumps(given)), out) == out
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_the_page_is_well_formed_and_says_its_language_and_title(page: Page, source: str) -> None:
    assert source.startswith('<!doctype html>\n<html lang="en">')
    assert page.open == []
    assert page.count("title") >= 1
    assert page.count("h1") == 1
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [a["href"] for name, a in page.tags if name == "a"]
    assert links == [f"#{name}" for name in ids]


def test_nothing_is_fetched_from_anywhere(page: Page) -> None:
    for name, attributes in page.tags:
        assert name not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert "src" not in attributes
        assert str(attributes.get("href", "#")).startswith("#")
    assert not re.search(r"url\(|@import|https?:|fetch\(|XMLHttp", STYLE + SCRIPT)
    policy = [a["content"] for name, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy
    assert str(policy[0]).startswith("default-src 'none'")


def test_every_detector_has_its_row_with_every_dose_and_interval(page: Page, given: dict[str, Any]) -> None:
    for name in GAINS:
        rows = [row for row in page.rows if row and row[0] == name]
        areas = [r for r in given["rows"] if r["detector"] == name and r["metric"] == "auroc" and r["seed"] == 0]
        for suite in ("typos", "jailbreaks"):
            own = [r for r in areas if r["suite"] == suite]
            printed = {f"{r['estimate']:.3f}".lstrip("0") for r in own}
            assert any(all(any(cell.startswith(p) for cell in row) for p in printed) for row in rows), (name, suite)
        low = f"{areas[0]['low']:.3f}".lstrip("0")
        assert any(low in cell for row in rows for cell in row)


def test_tables_have_captions_and_headed_columns(page: Page) -> None:
    assert page.count("caption") == page.count("table") > 8
    assert all(a.get("scope") in ("col", "row") for name, a in page.tags if name == "th")


def test_figures_are_there_with_their_names(page: Page) -> None:
    names = {str(a["aria-label"]) for name, a in page.tags if name == "svg"}
    assert {"typos: AUROC by dose", "Training: fvu", "p-values of clean test prompts, tokens 1-39"} <= names
    assert "Share caught, jailbreaks" in names


def test_false_alarms_matching_settings_and_the_command_are_printed(page: Page) -> None:
    text = page.text()
    assert "perimetry demo --out runs/demo" in text
    assert any(row[:2] == ["sae.width", "4608"] for row in page.rows)
    assert any(row[0] == "cut_to_limit" and row[1] == "3" for row in page.rows)
    assert any(row[0] == "tokens 40-79" and row[-1] in ("inside", "outside") for row in page.rows)
    assert "AUROC minus best baseline" in text


def test_hostile_texts_stay_texts(given: dict[str, Any], tmp_path: Path) -> None:
    bad = json.loads(json.dumps(given))
    for field in ("title", "subtitle", "command", "validation", "version", "date"):
        bad[field] = EVIL
    bad["hardware"] = {EVIL: EVIL}
    bad["configuration"] = {EVIL: [EVIL]}
    bad["matching"] = {EVIL: {EVIL: EVIL, "list": [{EVIL: EVIL}]}}
    for row in (*bad["rows"], *bad["seeds"]):
        row["suite"] = EVIL if row["suite"] == "typos" else row["suite"]
        row["detector"] = EVIL if row["detector"] == "surprise" else row["detector"]
        row["family"] = EVIL if row["family"] == "typos" else row["family"]
    for curve in bad["roc"]:
        curve["suite"] = EVIL if curve["suite"] == "typos" else curve["suite"]
    bad["main"] = EVIL
    bad["false_alarms"][0]["group"] = bad["p_values"][0]["group"] = EVIL
    bad["training"][0]["label"] = EVIL
    shown = bad["examples"][0]
    shown["title"] = shown["shifted"]["detector"] = EVIL
    shown["shifted"]["tokens"][0]["text"] = shown["shifted"]["concepts"][0]["token"] = EVIL
    shown["shifted"]["concepts"][0]["contexts"] = [f"{EVIL}«{EVIL}»{EVIL}"]
    out = build_report(bad, tmp_path / "report.html")
    page = Page(out.read_text(encoding="utf-8"))
    assert page.open == []
    assert page.count("script") == 1
    assert page.count("img") == 0
    assert [code for code in page.scripts if "alert" in code] == []
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert page.text().count(EVIL) > 20


def test_a_report_of_rows_alone_is_whole(given: dict[str, Any], tmp_path: Path) -> None:
    keys = ("command", "version", "hardware", "date", "rows", "main")
    out = build_report({key: given[key] for key in keys}, tmp_path / "report.html")
    page = Page(out.read_text(encoding="utf-8"))
    assert page.open == []
    anchors = [a["id"] for name, a in page.tags if name == "h2"]
    assert anchors == ["verdict", "doses", "detectors", "making"]


def test_the_same_results_give_the_same_bytes(given: dict[str, Any], source: str, tmp_path: Path) -> None:
    assert build_report(given, tmp_path / "again.html").read_text(encoding="utf-8") == source


def test_results_that_cannot_be_shown_are_named(given: dict[str, Any], tmp_path: Path) -> None:
    row = {**given["rows"][0], "estimate": float("nan"), "metrik": "auroc"}
    with pytest.raises(ConfigError, match=r"these results cannot be shown \(2 problems\): rows\.0\.estimate"):
        build_report({**given, "rows": [row]}, tmp_path / "report.html")
    with pytest.raises(ConfigError, match="command: Field required"):
        build_report({}, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
