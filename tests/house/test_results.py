"""Numbers in the pages are those of the result files, and the result files have the format that they say."""

import importlib.util
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from perimetry.errors import ConfigError
from report.samples import results as sample_results
from report.study_samples import RESULTS as STUDY

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "results"
WANTED = {"command", "version", "hardware", "date", "rows"}
PLAIN = (str, int, float, bool, type(None))
OF_RESULTS = ("short", "verdicts", "detectors", "seeds", "false-alarms")


@cache
def script() -> Any:
    spec = importlib.util.spec_from_file_location("make_results", ROOT / "docs" / "make_results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_results"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of a synthetic demo."""
    place = tmp_path_factory.mktemp("results")
    (place / "demo.json").write_text(json.dumps(sample_results(seeds=(0, 1), pairs=24)))
    return place


def test_every_block_is_up_to_date() -> None:
    pages = script().pages()
    assert {page.name for page in pages} >= {"README.md", "shift.md"}
    stale = [page.name for page in pages if script().fill(text := page.read_text(encoding="utf-8")) != text]
    assert stale == [], "run `make docs`"


def test_every_committed_result_has_the_format() -> None:
    for file in FOLDER.glob("*.json"):
        found = json.loads(file.read_text(encoding="utf-8"))
        assert set(found) >= WANTED, file.name
        assert found["rows"], file.name
        if file.name == "reading.json":
            continue
        for row in found["rows"]:
            assert all(isinstance(value, PLAIN) for value in row.values()), f"{file.name}: {row} is not flat"
            number = "value" if found.get("kind") == "masking" else "estimate"
            assert {number, "low", "high", "seed", "method"} <= set(row), f"{file.name}: {row}"
            assert any(key == "n" or key.startswith("n_") for key in row), f"{file.name}: {row}"


def test_no_committed_result_holds_a_prompt() -> None:
    for file in FOLDER.glob("*.json"):
        found = json.loads(file.read_text(encoding="utf-8"))
        assert not {"examples", "roc", "p_values", "training"} & set(found), f"{file.name}: take it with --take"


@pytest.mark.parametrize("view", sorted(script().VIEWS))
def test_a_block_without_its_file_says_so(view: str, tmp_path: Path) -> None:
    assert script().block("demo", view, tmp_path) == "*No result is committed yet: `docs/results/demo.json` is absent.*"


def test_a_view_that_is_not_there_is_an_error(folder: Path) -> None:
    with pytest.raises(KeyError, match="shrot"):
        script().block("demo", "shrot", folder)


def test_filling_changes_only_blocks_and_is_stable(folder: Path) -> None:
    page = "# a\n\n<!-- results:demo/verdicts -->\nold 0.123\n<!-- end -->\n\n.5 stays\n"
    once = script().fill(page, folder)
    assert once.startswith("# a\n\n<!-- results:demo/verdicts -->\n\n* ")
    assert once.endswith("\n\n<!-- end -->\n\n.5 stays\n")
    assert "old 0.123" not in once
    assert script().fill(once, folder) == once
    assert script().fill("no block", folder) == "no block"


def test_two_blocks_of_a_page_stay_two(folder: Path) -> None:
    page = "<!-- results:demo/short -->\n<!-- end -->\nbetween\n<!-- results:demo/seeds -->\n<!-- end -->\n"
    filled = script().fill(page, folder)
    assert filled.count("<!-- end -->") == 2
    assert "\nbetween\n" in filled


def cells(markdown: str) -> dict[str, list[str]]:
    """First cell of each line of the first table -> the others."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found: dict[str, list[str]] = {}
    for line in table:
        found.setdefault(line[0].strip("*"), line[1:])
    return found


def test_the_tables_hold_the_numbers_of_the_rows(folder: Path) -> None:
    rows = json.loads((folder / "demo.json").read_text())["rows"]
    wanted = {
        (r["detector"], r["dose"]): f"{r['estimate']:.3f} ({r['low']:.2f} to {r['high']:.2f})"
        for r in rows
        if r["suite"] == "typos" and r["metric"] == "auroc" and r["seed"] == 0
    }
    for view, names in (("short", ("surprise", "nll", "mahalanobis")), ("detectors", ("l0", "surprise", "knn"))):
        table = cells(script().block("demo", view, folder))
        assert table["score"] == ["kind", "5 %", "10 %", "20 %", "50 %"]
        for name in names:
            assert table[f"`{name}`"][1:] == [wanted[name, dose] for dose in (0.05, 0.1, 0.2, 0.5)]


def test_the_short_table_has_the_named_baselines_and_the_best_of_each_kind(folder: Path) -> None:
    text = script().block("demo", "short", folder)
    names = [line.split("`")[1] for line in text.splitlines() if line.startswith(("| `", "| **`"))]
    assert names[: names.index("surprise", 1)] == [
        "surprise",
        "surprise.top10",
        "nll",
        "mahalanobis",
        "tokens_per_word",
    ]
    assert "chosen after the fact" in text
    assert "`perimetry demo --out runs/demo`, perimetry 0.1.0" in text


def test_the_detectors_leave_out_other_poolings(folder: Path) -> None:
    text = script().block("demo", "detectors", folder)
    assert "`l0`" in text
    assert "`surprise.top10`" not in text
    assert "suite `jailbreaks`" in text


def test_the_seeds_table_holds_their_range(folder: Path) -> None:
    seeds = json.loads((folder / "demo.json").read_text())["seeds"]
    text = script().block("demo", "seeds", folder)
    mine = [s for s in seeds if s["metric"] == "auroc_difference" and s["selection"] == "main"]
    assert len([line for line in text.splitlines() if line.startswith("| `")]) == len(mine)
    for row in mine:
        assert f"{row['mean']:+.3f} | {row['least']:+.3f} to {row['greatest']:+.3f}" in text


def test_the_false_alarms_say_when_they_are_outside(tmp_path: Path) -> None:
    whole = sample_results(seeds=(0,), pairs=12)
    whole["false_alarms"][0] |= {"realised": 0.5, "inside": False}
    (tmp_path / "demo.json").write_text(json.dumps(whole))
    text = script().block("demo", "false-alarms", tmp_path)
    first = next(line for line in text.splitlines() if "| 0.500 |" in line)
    assert "| no |" in first
    assert "outside" in script().block("demo", "verdicts", tmp_path)


def test_verdicts_say_which_way_it_went(folder: Path, tmp_path: Path) -> None:
    assert "**holds:**" in script().block("demo", "verdicts", folder)
    whole = json.loads((folder / "demo.json").read_text())
    for row in whole["rows"]:
        if row["metric"] == "auroc_difference":
            row["estimate"], row["low"], row["high"] = -row["estimate"], -row["high"], -row["low"]
    (tmp_path / "demo.json").write_text(json.dumps(whole))
    assert "**fails:**" in script().block("demo", "verdicts", tmp_path)


def test_taking_a_result_drops_what_is_not_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sample_results(seeds=(0,), pairs=12)
    source = tmp_path / "results.json"
    source.write_text(json.dumps(whole))
    monkeypatch.setattr(script(), "FOLDER", tmp_path / "kept")
    kept = json.loads(script().take(source, "demo").read_text())
    assert kept["rows"] == whole["rows"]
    assert not {"examples", "roc", "p_values", "training", "timings"} & set(kept)
    source.write_text(json.dumps({"rows": []}))
    with pytest.raises(ConfigError, match="cannot be shown"):
        script().take(source, "demo")


def test_a_benchmark_becomes_a_table(tmp_path: Path) -> None:
    row = {"metric": "time_ratio", "arm": "harvest", "against": "truncated pass", "estimate": 1.25, "low": 1.2}
    row |= {"high": 1.3, "n": 7, "seed": 0, "method": "m", "model": "tiny"}
    whole = {"command": "python benchmarks/harvest.py", "version": "0.1.0", "date": "2026-01-02T03", "rows": [row]}
    whole |= {"hardware": {"processor": "p", "threads": 2, "torch": "2"}}
    (tmp_path / "harvest.json").write_text(json.dumps(whole))
    text = script().block("harvest", "speeds", tmp_path)
    assert "| tiny | time_ratio | harvest | truncated pass | 1.25 | 1.2 to 1.3 | 7 |" in text
    assert "p, 2 threads, torch 2, 2026-01-02." in text


def test_controls_become_a_table_that_hides_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"control": "untrained_sae", "detector": "l0", "against": "l0, untrained SAE", "dose": 0.2, "seed": 0}
    row |= {"metric": "auroc_difference", "expected": "above 0", "holds": True, "method": "m"}
    row |= {"estimate": 0.25, "low": 0.2, "high": 0.3, "n": 1000}
    rows = [row, {**row, "holds": False, "dose": 0.05, "estimate": 0.01}, {**row, "holds": None, "expected": ""}]
    whole = {"command": "perimetry bench controls m", "version": "0.1.0", "date": "2026-01-02T03", "rows": []}
    whole |= {"controls": rows, "subtitle": "a model", "hardware": {"processor": "p", "cores": 2, "torch": "2"}}
    (tmp_path / "results.json").write_text(json.dumps(whole))
    monkeypatch.setattr(script(), "FOLDER", tmp_path / "kept")
    kept = json.loads(script().take(tmp_path / "results.json", "controls").read_text())
    assert kept["rows"] == rows, "the rows of a run of controls are its controls"
    text = script().block("controls", "controls", tmp_path / "kept")
    first = "| An SAE that learned nothing | `l0` | l0, untrained SAE |"
    assert f"{first} 20 % | auroc difference | 0.250 (0.200 to 0.300) | 1,000 | above 0 | holds |" in text
    assert f"{first} 5 % | auroc difference | 0.010 (0.200 to 0.300) | 1,000 | above 0 | **fails** |" in text
    assert "1 of 2 controls hold, 1 fail." in text
    assert text.endswith("torch 2, 2026-01-02. a model")


def test_a_reading_is_printed_as_it_was(tmp_path: Path) -> None:
    whole = {"command": 'perimetry score m "a"', "printed": "0  inside\n\n", "rows": []}
    (tmp_path / "reading.json").write_text(json.dumps(whole))
    assert script().block("reading", "printed", tmp_path) == '```text\n$ perimetry score m "a"\n0  inside\n```'


def test_check_only_compares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "README.md"
    page.write_text("<!-- results:none-such/short -->\nstale\n<!-- end -->\n")
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(script(), "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_results.py", "--check"])
    assert script().main() == 1
    assert "stale" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["make_results.py"])
    assert script().main() == 0
    assert "docs/results/none-such.json" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["make_results.py", "--check"])
    assert script().main() == 0


def test_a_study_is_taken_without_its_validation_rows_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "results.json"
    first = STUDY["rows"][0]
    source.write_text(json.dumps(STUDY | {"rows": [first | {"split": "validation"}, *STUDY["rows"]]}))
    monkeypatch.setattr(script(), "FOLDER", tmp_path)
    taken = json.loads(script().take(source, "study").read_text(encoding="utf-8"))
    assert taken["rows"] == STUDY["rows"]
    text = script().block("study", "study", tmp_path)
    assert text.startswith("* Chosen of 5 concept scores: energy (layer 12, standard 64), validation AUROC .830")
    assert "* **holds:** typos, test: energy beats nll" in text
    assert "| layer | topk | standard |" in text
    assert "| 6 | 0.640 `l0` | 0.550 `energy` |" in text
    assert "| typos | mean | `energy` minus `nll` | 0.034 (0.012 to 0.056) | 0.024 to 0.044 | 40 |" in text
    source.write_text(json.dumps({k: v for k, v in STUDY.items() if k != "chosen"}))
    with pytest.raises(ConfigError, match="these results of a study cannot be shown"):
        script().take(source, "study")
