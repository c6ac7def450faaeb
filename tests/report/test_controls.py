"""Controls in the report: a line each, those that fail like the others, numbers beside them folded away."""

from typing import Any

import pytest

from perimetry.errors import ConfigError
from perimetry.report.controls import NAMES, controls_section
from perimetry.report.html import render
from perimetry.report.schema import parse_results
from report.parsing import Page
from report.samples import results

ROW: dict[str, Any] = {
    **{"control": "untrained_sae", "detector": "surprise", "against": "surprise, untrained SAE", "dose": 0.2},
    **{"metric": "auroc_difference", "expected": "above 0", "holds": True, "estimate": 0.123, "low": 0.1, "high": 0.2},
    **{"n": 40, "seed": 0, "method": "bootstrap by pair 95 %"},
}
FAILS = {**ROW, "detector": "l0", "holds": False, "estimate": -0.012, "low": -0.1, "high": 0.05}
BESIDE = {**ROW, "metric": "auroc", "expected": "", "holds": None, "estimate": 0.876, "against": "trained SAE"}
CLEAN = {
    **ROW,
    "control": "clean_against_clean",
    "dose": 0.0,
    "metric": "auroc",
    "expected": "0.5 inside",
    "against": "",
}
STRANGE = {**ROW, "control": "my_own"}


def bare(*rows: dict[str, Any]) -> dict[str, Any]:
    known = results((0,), 20)
    kept = {key: known[key] for key in ("command", "version", "hardware", "date", "main")}
    return {**kept, "rows": [], "controls": list(rows)}


def page(*rows: dict[str, Any]) -> Page:
    return Page(controls_section(parse_results(bare(*rows))))


def test_each_control_has_its_line_whichever_way_it_went() -> None:
    shown = page(ROW, FAILS)
    wanted = [
        "surprise",
        "surprise, untrained SAE",
        "20 %",
        "auroc difference",
        ".123",
        ".100 to .200",
        "40",
        "above 0",
    ]
    assert [*wanted, "holds", "bootstrap by pair 95 %"] in shown.rows
    lost = ["l0", "surprise, untrained SAE", "20 %", "auroc difference", "−.012", "−.100 to .050", "40", "above 0"]
    assert [*lost, "fails", "bootstrap by pair 95 %"] in shown.rows
    assert "1 of 2 controls hold, 1 fail." in shown.text()
    badges = [attributes.get("class") for name, attributes in shown.tags if name == "span"]
    assert badges == ["badge good", "badge bad"]
    assert shown.count("details") == 0


def test_numbers_beside_are_folded_away_and_not_counted() -> None:
    shown = page(ROW, BESIDE)
    assert "1 of 1 controls hold, 0 fail." in shown.text()
    assert shown.count("details") == 1
    beside = next(row for row in shown.rows if ".876" in row)
    assert beside[7:9] == ["–", "–"]


def test_controls_come_in_their_order_and_strangers_last() -> None:
    shown = page(STRANGE, CLEAN, ROW)
    places = [shown.text().index(text) for text in (NAMES["untrained_sae"], NAMES["clean_against_clean"], "my_own")]
    assert places == sorted(places)
    clean = next(row for row in shown.rows if "0.5 inside" in row)
    assert clean[1:3] == ["–", "–"]


def test_without_controls_there_is_no_section() -> None:
    assert controls_section(parse_results(results((0,), 20))) == ""
    assert page(BESIDE).text() == ""


def test_a_page_of_controls_alone_stands() -> None:
    whole = Page(render(parse_results(bare(ROW, FAILS))))
    heads = [attributes.get("href") for name, attributes in whole.tags if name == "a"]
    assert heads[:1] == ["#controls"]
    assert "#detectors" not in heads
    assert "What a sceptic would try" in whole.text()


def test_a_control_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"controls\.0\.hold"):
        parse_results(bare({**ROW, "hold": True}))
