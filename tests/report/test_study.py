"""The page of a study: the heat maps, the verdict, and what it refuses."""

import copy
import re
from typing import Any

import pytest

from perimetry.errors import ConfigError
from perimetry.report.html import render
from perimetry.report.schema_study import parse_study
from report.study_samples import CELLS, RESULTS, cell, over


def page(**changes: Any) -> str:
    return render(parse_study(copy.deepcopy(RESULTS) | changes))


def maps(text: str) -> dict[str, list[list[str]]]:
    """Caption of each heat map -> its rows as plain text."""
    found: dict[str, list[list[str]]] = {}
    section = text.partition('id="heat"')[2].partition("</section>")[0]
    for table in re.findall(r"<table>.*?</table>", section, re.DOTALL):
        caption = re.search(r"<caption>(.*?)</caption>", table)
        assert caption is not None
        rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", r, re.DOTALL) for r in rows]
        found[caption[1]] = [[re.sub(r"<[^>]+>", " ", c).strip() for c in r] for r in cells]
    return found


def test_the_heat_maps_show_the_best_and_the_named_score() -> None:
    text = page()
    best, main, bare = maps(text).values()
    assert best == [
        ["layer", "topk", "standard"],
        ["6", ".640  l0", ".550  energy"],
        ["12", ".710  energy", ".830  energy"],
    ]
    assert main[1] == ["6", ".610  energy", ".550  energy"]
    assert bare == [["layer", "no SAE"], ["6", ".770  nll"], ["12", ".780  nll"]]
    assert "A &lt;study&gt;" in text
    assert text.count("<strong>.830</strong>") == 2, "the best of each map stands out"


def test_several_widths_have_columns_of_their_own_and_gaps_are_shown() -> None:
    cells = [cell(6, "topk", "energy", 0.6), cell(12, "topk", "energy", 0.7, width=128), *CELLS[5:]]
    best = next(iter(maps(page(cells=cells)).values()))
    assert best == [["layer", "topk 64", "topk 128"], ["6", ".600  energy", "–"], ["12", "–", ".700  energy"]]


@pytest.mark.parametrize(
    ("low", "high", "tone", "said"),
    [
        (0.012, 0.056, "good", "energy beats nll"),
        (-0.09, -0.01, "bad", "energy loses to nll"),
        (-0.01, 0.05, "open", "energy is not told apart from nll"),
    ],
)
def test_the_verdict_follows_the_interval(low: float, high: float, tone: str, said: str) -> None:
    confirmed = RESULTS["confirmed"] | {"over_seeds": [over("auroc_difference", 0.034, low, high)]}
    text = page(confirmed=confirmed)
    assert re.search(f'<li class="{tone}">typos, test: {said}, difference of AUROC .034', text)
    assert "Chosen of 5 concept scores: energy (layer 12, standard 64), validation AUROC .830; of 3 baselines" in text
    assert "nll (layer 12), .780" in text


def test_a_second_look_is_not_hidden() -> None:
    assert "looked at" not in page()
    assert "Measured once, on 2026-01-02." in page()
    text = page(confirmed=RESULTS["confirmed"] | {"looks": 3})
    assert "The test suites were looked at 3 times, not once." in text
    assert "Measured 3 times, last on 2026-01-02." in text


def test_what_is_no_study_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"these results of a study cannot be shown \(1 problems\): chosen: Field required"
    ):
        parse_study({k: v for k, v in RESULTS.items() if k != "chosen"})
    with pytest.raises(ConfigError, match="cells: "):
        parse_study(RESULTS | {"cells": []})
