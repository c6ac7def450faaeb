"""The tables and figures of all suites hold the numbers of the rows, whichever way they went."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from house.test_results import cells, script
from report.samples import results as sample_results


def whole() -> dict[str, Any]:
    """Results with a suite of harmless texts and with damage."""
    found = sample_results(seeds=(0, 1), pairs=24)
    model = next(r for r in found["rows"] if (r["suite"], r["metric"], r["detector"]) == ("typos", "auroc", "surprise"))
    about = {"n_pairs": 24, "n_shifted": 24, "n_clean": 0, "negatives": "none"}
    for detector, estimate in (("surprise", 0.1), ("nll", 0.25)):
        rates = {"metric": "alarm_rate_at_5", "estimate": estimate, "low": estimate / 2, "high": 2 * estimate}
        found["rows"].append(
            model | about | rates | {"suite": "domain", "family": "code", "dose": 1.0, "detector": detector}
        )
        ranks = {"metric": "damage_kl_spearman", "dose": 0.0, "estimate": 3 * estimate, "low": 0.0, "high": 0.9}
        found["rows"].append(model | about | ranks | {"detector": detector})
    gain = {"metric": "damage_kl_spearman_difference", "dose": 0.0, "estimate": -0.45, "low": -0.6, "high": -0.3}
    found["rows"].append(model | about | gain | {"against": "nll", "best_baseline": True, "selection": "main"})
    harm = {"suite": "typos", "family": "typos", "dose": 0.2, "measure": "kl", "estimate": 0.5, "low": 0.4, "high": 0.6}
    found["damage"] = [harm | {"n_pairs": 24, "method": "bootstrap"}]
    found["benign"] = {"domain": ["code"]}
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = tmp_path / "results.json"
    source.write_text(json.dumps(whole()))
    place = tmp_path / "kept"
    place.mkdir()
    monkeypatch.setattr(script(), "FOLDER", place)
    script().take(source, "bench")
    return place


def box(row: dict[str, Any], form: str = "") -> str:
    return f"{row['estimate']:{form}.3f} ({row['low']:{form}.2f} to {row['high']:{form}.2f})"


def one(suite: str, metric: str, detector: str, dose: float, **more: Any) -> dict[str, Any]:
    wanted = {
        "suite": suite,
        "metric": metric,
        "detector": detector,
        "dose": dose,
        "seed": 0,
        "negatives": "all",
        **more,
    }
    return next(row for row in whole()["rows"] if wanted.items() <= row.items())


def test_what_is_kept_is_one_seed_and_no_other_pooling(folder: Path) -> None:
    rows = json.loads((folder / "bench.json").read_text())["rows"]
    assert {row["seed"] for row in rows} == {0}
    assert not [row for row in rows if row["detector"] == "surprise.top10" and row["metric"] == "auroc"]
    assert {"auroc", "auroc_difference_out_of_fold", "added_log_loss", "tpr_at_1_fpr"} <= {
        row["metric"] for row in rows
    }


def test_a_line_a_suite(folder: Path) -> None:
    table = cells(script().block("bench", "suites", folder))
    assert table["suite"][2] == "`surprise`"
    line = table["`typos`"]
    assert line[0] == "20 %"
    assert line[2] == box(one("typos", "auroc", "surprise", 0.2))
    assert line[3] == box(one("typos", "auroc", "nll", 0.2))
    gain = one("typos", "auroc_difference_out_of_fold", "surprise", 0.2, selection="main")
    sure = not gain["low"] <= 0 <= gain["high"]
    assert line[5] == (f"**{box(gain, '+')}**" if sure else box(gain, "+"))


def test_harmless_texts_stand_apart(folder: Path) -> None:
    text = script().block("bench", "suites", folder)
    first, _, second = text.partition("Novel and harmless")
    assert "`domain`" not in first
    assert "| `domain` | code | 24 | 0.100 (0.05 to 0.20) | 0.250 (0.12 to 0.50) |" in second


def test_doses_and_rare_alarms(folder: Path) -> None:
    text = script().block("bench", "doses", folder)
    assert [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| `typos`")] == [
        "5 %",
        "10 %",
        "20 %",
        "50 %",
    ]
    assert "`jailbreaks`" not in text
    rare = script().block("bench", "rare", folder)
    assert "`typos`" not in rare
    caught = one("jailbreaks", "tpr_at_1_fpr", "surprise", 0.25)
    assert box(caught) in rare


def test_damage_says_when_a_baseline_follows_it_better(folder: Path) -> None:
    text = script().block("bench", "damage", folder)
    assert "| `typos` | typos | 20 % | kl | 0.500 (0.40 to 0.60) | 24 |" in text
    assert "| `nll` | 0.750 (0.00 to 0.90) | **-0.450 (-0.60 to -0.30)** |" in text


def test_aims_say_what_was_missed(folder: Path) -> None:
    whole = json.loads((folder / "bench.json").read_text())
    table = cells(script().block("bench", "aims", folder))
    for dose, wanted in ((0.05, 0.75), (0.2, 0.97)):
        seeds = {"suite": "typos", "metric": "auroc", "detector": "surprise", "dose": dose, "negatives": "all"}
        area = next(row for row in whole["seeds"] if seeds.items() <= row.items())
        line = table[f"{100 * dose:g} %"]
        assert line[:2] == [f"{wanted:.2f}", f"{area['mean']:.3f}"]
        assert line[3] == ("reached" if area["least"] >= wanted else f"**missed** by {wanted - area['mean']:.3f}")


def test_figures_are_whole_files_and_compared(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script(), "FIGURES", ("typos",))
    monkeypatch.setattr(script(), "DRAWN", tmp_path / "figures")
    ((file, text),) = script().drawings(folder).items()
    assert file == tmp_path / "figures" / "typos.svg"
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    names = [node.text for node in root.iter() if node.get("class") == "name"]
    assert names[0] == "surprise"
    assert "nll" in names
    estimate = one("typos", "auroc", "surprise", 0.2)["estimate"]
    assert f"surprise: {estimate:.3f}".replace("0.", ".") in text


def test_no_result_no_figure(tmp_path: Path) -> None:
    assert script().drawings(tmp_path) == {}


def test_every_committed_figure_is_up_to_date() -> None:
    for file, text in script().drawings().items():
        assert file.read_text(encoding="utf-8") == text, "run `make docs`"
