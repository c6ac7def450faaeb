"""The page of a study: the heat maps, the verdict, and what it refuses."""

import copy
import re
from typing import Any

import pytest

from perimetry.errors import ConfigError
from perimetry.report.html import render
from perimetry.report.schema_study import parse_study


def cell(
    layer: int, architecture: str, detector: str, mean: float, kind: str = "concept", width: int = 64
) -> dict[str, Any]:
    where = {"layer": layer, "architecture": architecture, "width": width if architecture else 0}
    return {**where, "detector": detector, "kind": kind, "mean": mean, "least": mean, "greatest": mean, "seeds": 2}


def over(metric: str, mean: float, low: float, high: float, dose: float = 0.0) -> dict[str, Any]:
    return {
        **{"suite": "typos", "family": "all", "dose": dose, "negatives": "all", "detector": "energy", "metric": metric},
        **{"against": "nll" if metric == "auroc_difference" else "", "selection": "main", "seeds": 2, "mean": mean},
        **{"least": mean - 0.01, "greatest": mean + 0.01, "every_interval_above_zero": low > 0, "low": low},
        **{"high": high, "n_pairs": 40, "method": "bootstrap by pair, 95 %"},
    }


def row(metric: str, seed: int, estimate: float) -> dict[str, Any]:
    return {
        **{
            "split": "test",
            "layer": 12,
            "architecture": "standard",
            "width": 64,
            "fvu": 0.2,
            "l0": 40.0,
            "suite": "typos",
        },
        **{"family": "all", "dose": 0.2, "negatives": "all", "detector": "energy", "kind": "concept", "metric": metric},
        **{"against": "", "best_baseline": False, "selection": "main", "estimate": estimate, "low": 0.1, "high": 0.9},
        **{"n_shifted": 40, "n_clean": 40, "n_pairs": 40, "seed": seed, "method": "bootstrap by pair, 95 %"},
    }


CELLS = [
    cell(6, "topk", "energy", 0.61),
    cell(6, "topk", "l0", 0.64),
    cell(6, "standard", "energy", 0.55),
    cell(12, "topk", "energy", 0.71),
    cell(12, "standard", "energy", 0.83),
    cell(6, "", "nll", 0.77, "baseline"),
    cell(12, "", "nll", 0.78, "baseline"),
    cell(12, "topk", "recon_error", 0.74, "baseline"),
]
RESULTS: dict[str, Any] = {
    **{"kind": "study", "title": "A <study>", "command": "perimetry study", "version": "0", "hardware": "none"},
    **{
        "date": "2026-01-01",
        "main": "energy",
        "rule": "The highest mean.",
        "rows": [row("auroc", s, 0.8) for s in (0, 1)],
    },
    **{"cells": CELLS, "chosen": CELLS[4], "chosen_baseline": CELLS[6], "compared": {"concept": 5, "baseline": 3}},
    "saes": [
        {"layer": 12, "architecture": "standard", "width": 64, "seed": 0, "fvu": 0.213, "l0": 41.2, "dead": 0.015}
    ],
    "confirmed": {
        **{"looks": 1, "date": "2026-01-02", "version": "0"},
        "over_seeds": [over("auroc", 0.8, 0.7, 0.9), over("auroc_difference", 0.034, 0.012, 0.056)],
    },
}
RESULTS["saes"][0]["digest"] = "0123456789abcdefXYZ"


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
