"""The study on the tiny world: killed anywhere, confirmed once, on documents that nothing shares."""

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tests.worlds import World, child_environment, run_main, text_of, write_jsonl

from perimetry.activations.text import take_split
from perimetry.assets import read_texts
from perimetry.config import build
from perimetry.errors import ConfigError, Locked, TooFewSamples, UsageError
from perimetry.measures.ranking import auroc
from perimetry.pipeline import study as study_module
from perimetry.pipeline.study import run_study
from perimetry.pipeline.study_choice import Choice, Score, choose
from perimetry.pipeline.study_config import (
    FIT_SPLIT,
    TEST_SPLIT,
    TRAIN_SPLIT,
    VALIDATION_SPLIT,
    StudyConfig,
    with_preset,
)
from perimetry.pipeline.study_measure import StudyRow, study_suites
from perimetry.pipeline.study_meters import Bench, meter_folder, meters_of
from perimetry.pipeline.study_saes import Cell, StudySAE, load_trained
from perimetry.report import parse_results
from perimetry.report.schema_study import parse_study
from perimetry.runtime import Runtime
from perimetry.shift import DETECTORS
from perimetry.shift.loading import load_meter
from perimetry.shift.tables import all_score_names
from perimetry.storage import hash_file, lock, read_json, write_json

RUNTIME = Runtime(torch.device("cpu"), torch.float32)
SEEDS = (0, 1)


class Killed(BaseException):
    pass


class Whole(NamedTuple):
    config: StudyConfig
    results: dict[str, Any]
    out: Path


@pytest.fixture(scope="module")
def values(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("study") / "text.jsonl"
    write_jsonl(file, [{"id": f"t{i}", "text": text_of(f"t{i}", 160)} for i in range(700)])
    return with_preset({"model": str(world.model), "text": str(file), "together": 2}, "tiny")


@pytest.fixture(scope="module")
def whole(values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A study that was never stopped; read only."""
    config = build(StudyConfig, values, "test")
    out = tmp_path_factory.mktemp("whole")
    return Whole(config, run_study(config, out, RUNTIME), out)


def plain(results: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on when and how often a run was stopped."""
    kept = {k: v for k, v in results.items() if k not in ("date", "hardware", "command")}
    return kept | {"confirmed": {k: v for k, v in kept["confirmed"].items() if k != "date"}}


def run(config: StudyConfig, out: Path, stop: str = "", *, force: bool = False) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if stop and text.strip().startswith(stop):
            raise Killed

    return run_study(config, out, RUNTIME, force=force, say=say), said


def test_killed_anywhere_it_ends_with_the_same_numbers(whole: Whole, tmp_path: Path) -> None:
    for stop in ("2/4", "3/4", "layer 0", "layer 1", "4/4", "confirming"):
        with pytest.raises(Killed):
            run(whole.config, tmp_path, stop)
        assert not (tmp_path / "results.json").exists()
        assert not (tmp_path / "confirmation.json").exists(), "a look that was not finished is no look"
    # What a killed process leaves under a temporary name is no result.
    (tmp_path / "validation" / ".tmp-x.json.1").write_text("{")
    results, said = run(whole.config, tmp_path)
    assert plain(results) == plain(whole.results)
    assert not [line for line in said if "fitting" in line], "every layer was measured before the last stop"
    for folder in ("sae", "meters"):
        files = sorted(p.relative_to(tmp_path) for p in (tmp_path / folder).rglob("manifest.json"))
        assert files == sorted(p.relative_to(whole.out) for p in (whole.out / folder).rglob("manifest.json"))
        assert [hash_file(tmp_path / f) for f in files] == [hash_file(whole.out / f) for f in files]


def test_a_killed_process_goes_on(values: dict[str, Any], tmp_path: Path) -> None:
    few = {"architectures": ["batchtopk"], "seeds": [0], "together": 2}
    settings, out = tmp_path / "study.toml", tmp_path / "out"
    settings.write_text("[study]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in few.items()))
    words = ["study", "--preset", "tiny", "--config", str(settings), "--out", str(out), "--dtype", "float32"]
    words += ["--model", values["model"], "--text", values["text"], "--threads", "1", "--json", "--quiet"]
    child = subprocess.Popen(
        [sys.executable, "-m", "perimetry", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=child_environment(),
    )
    part = out / "validation" / "layer-00.json"
    while child.poll() is None and not part.is_file():
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    _, error = child.communicate()
    assert child.returncode == -signal.SIGKILL, error.decode()
    assert not (out / "results.json").exists()
    before = part.stat().st_mtime_ns
    again = run_main(*words)
    assert again.code == 0, again.err
    assert part.stat().st_mtime_ns == before, "what was measured is not measured again"
    whole, _ = run(build(StudyConfig, values | few, "test"), tmp_path / "whole")
    assert plain(again.json()) == plain(whole)


def test_the_parts_of_the_text_share_no_document(whole: Whole, world: World) -> None:
    documents = list(read_texts(whole.config.text))
    splits = [take_split(documents, *s) for s in (TRAIN_SPLIT, FIT_SPLIT, VALIDATION_SPLIT, TEST_SPLIT)]
    names = [{d.id for d in split} for split in splits]
    assert all(not one & other for one, other in itertools.combinations(names, 2))
    assert sum(map(len, names)) == len(documents)
    lm = load_meter(world.meter).lm
    settings = whole.config
    suites = [
        study_suites(settings, lm, splits[2], n=settings.passages, seed=settings.seed),
        study_suites(settings, lm, splits[3], n=settings.test_passages, seed=settings.test_seed),
    ]
    for made, own, n in zip(suites, names[2:], (10, 12), strict=True):
        pairs = {case.pair for suite in made for case in suite.cases}
        assert len(pairs) == n
        assert {pair.partition("@")[0] for pair in pairs} <= own
        assert {case.dose for suite in made for case in suite.cases} == {0.0, 0.2, 0.5}


def test_every_score_of_every_sae_is_measured_and_what_reads_none_once(whole: Whole) -> None:
    rows = [StudyRow.from_json(row) for row in whole.results["rows"] if row["split"] == "validation"]
    reads = {name for name in all_score_names() if DETECTORS[name.partition(".")[0]].needs_sae}
    bare = set(all_score_names()) - reads
    for layer in (0, 1):
        for cell, wanted, seeds in (
            (Cell(layer, "batchtopk", 64), reads, SEEDS),
            (Cell(layer, "standard", 64), reads, SEEDS),
            (Cell(layer, "", 0), bare, (0,)),
        ):
            mine = [row.measured for row in rows if row.cell == cell]
            found = [(r.detector, r.dose, r.seed) for r in mine]
            assert len(found) == len(set(found))
            assert set(found) == set(itertools.product(wanted, (0.2, 0.5), seeds))
            assert all(r.n_pairs == 10 and 0 <= r.low <= r.estimate <= r.high <= 1 for r in mine)
    assert all((row.fvu is None) == (not row.cell.architecture) for row in rows)
    saes = {(s["layer"], s["architecture"], s["width"], s["seed"]): s for s in whole.results["saes"]}
    assert len(saes) == 8
    for row in rows:
        if row.cell.architecture:
            one = saes[row.cell.layer, row.cell.architecture, row.cell.width, row.measured.seed]
            assert (row.fvu, row.l0) == (one["fvu"], one["l0"])


def test_the_choice_is_the_best_of_all_cells(whole: Whole) -> None:
    results = whole.results
    for kind, key in (("concept", "chosen"), ("baseline", "chosen_baseline")):
        cells = [cell for cell in results["cells"] if cell["kind"] == kind]
        assert results["compared"][kind] == len(cells)
        assert results[key]["mean"] == max(cell["mean"] for cell in cells)
        assert results[key] in cells
    one = results["chosen"]
    mine = [
        row["estimate"]
        for row in results["rows"]
        if row["split"] == "validation"
        and all(row[k] == one[k] for k in ("layer", "architecture", "width", "detector"))
    ]
    assert len(mine) == len(SEEDS) * 2
    assert one["mean"] == pytest.approx(sum(mine) / len(mine))


def test_the_confirmation_is_what_the_kept_meters_say(whole: Whole) -> None:
    results, config = whole.results, whole.config
    chosen, baseline = results["chosen"], results["chosen_baseline"]
    rows = [row for row in results["rows"] if row["split"] == "test"]
    held = take_split(list(read_texts(config.text)), *TEST_SPLIT)

    def area(folder: Path, name: str, dose: float) -> float:
        meter = load_meter(folder)
        (suite,) = study_suites(config, meter.lm, held, n=config.test_passages, seed=config.test_seed)
        scores = {
            shifted: torch.tensor(
                [
                    meter.score([case.text], detectors=[name], explain=False)[0].scores[name]
                    for case in suite.cases
                    if case.shifted == shifted and (not shifted or case.dose == dose)
                ]
            )
            for shifted in (False, True)
        }
        return auroc(scores[False].double(), scores[True].double())

    theirs = StudySAE(Cell(baseline["layer"], baseline["architecture"] or "batchtopk", 64), 0)
    for seed in SEEDS:
        cell = Cell(chosen["layer"], chosen["architecture"], chosen["width"])
        ours = area(meter_folder(whole.out, StudySAE(cell, seed)), chosen["detector"], 0.5)
        other = theirs._replace(seed=seed if baseline["architecture"] else 0)
        beside = area(meter_folder(whole.out, other), baseline["detector"], 0.5)
        at = {
            r["metric"]: r["estimate"]
            for r in rows
            if r["dose"] == 0.5 and r["seed"] == seed and r["kind"] == "concept"
        }
        assert at == pytest.approx({"auroc": ours, "auroc_difference": ours - beside}, abs=1e-6)


def test_over_doses_and_over_seeds(whole: Whole) -> None:
    rows = [row for row in whole.results["rows"] if row["split"] == "test" and row["kind"] == "concept"]
    together = {(r["metric"], r["dose"]): r for r in whole.results["confirmed"]["over_seeds"]}
    assert set(together) == set(itertools.product(("auroc", "auroc_difference"), (0.0, 0.2, 0.5)))
    for (metric, dose), found in together.items():
        mine = {row["seed"]: row["estimate"] for row in rows if (row["metric"], row["dose"]) == (metric, dose)}
        assert set(mine) == set(SEEDS)
        assert (found["least"], found["greatest"]) == (min(mine.values()), max(mine.values()))
        assert found["mean"] == pytest.approx(sum(mine.values()) / 2)
        assert found["low"] <= found["mean"] <= found["high"]
        assert (found["seeds"], found["n_pairs"]) == (2, 12)
    for metric in ("auroc", "auroc_difference"):
        for seed in SEEDS:
            by_dose = {r["dose"]: r["estimate"] for r in rows if r["metric"] == metric and r["seed"] == seed}
            assert by_dose[0.0] == pytest.approx((by_dose[0.2] + by_dose[0.5]) / 2)


def test_only_the_meters_that_lead_are_kept_and_a_lost_one_is_fitted_again_the_same(
    whole: Whole, tmp_path: Path
) -> None:
    kept = {folder.parent for folder in (whole.out / "meters").rglob("manifest.json")}
    chosen, baseline = whole.results["chosen"], whole.results["chosen_baseline"]
    wanted = {
        meter_folder(whole.out, StudySAE(Cell(c["layer"], c["architecture"], c["width"]), seed))
        for c in (chosen, baseline)
        for seed in SEEDS
        if c["architecture"]
    }
    if not baseline["architecture"]:
        wanted.add(meter_folder(whole.out, StudySAE(Cell(baseline["layer"], "batchtopk", 64), 0)))
    assert kept == wanted
    folder = meter_folder(whole.out, StudySAE(Cell(chosen["layer"], chosen["architecture"], chosen["width"]), 1))
    meter = load_meter(folder)
    fit_on = take_split(list(read_texts(whole.config.text)), *FIT_SPLIT)
    (tmp_path / "sae").symlink_to(whole.out / "sae")
    bench = Bench(whole.config, meter.lm, fit_on, tmp_path, progress=False)
    cell = Cell(chosen["layer"], chosen["architecture"], chosen["width"])
    (again,) = meters_of(bench, [StudySAE(cell, 1)])
    text = text_of("x", 30)
    one, other = (m.score([text], detectors="all")[0].scores for m in (meter, again))
    own = {name for name in one if DETECTORS[name.partition(".")[0]].needs_sae}
    assert {n: one[n] for n in own} == pytest.approx({n: other[n] for n in own}, rel=1e-5, abs=1e-6)


def test_it_is_confirmed_once(whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _copy(whole.out, tmp_path)
    results, said = run(whole.config, tmp_path)
    assert plain(results) == plain(whole.results)
    assert results["confirmed"]["date"] == whole.results["confirmed"]["date"]
    assert "confirmed before, taken from confirmation.json" in said
    forced, said = run(whole.config, tmp_path, force=True)
    assert any(line.startswith("confirming ") for line in said)
    assert forced["confirmed"]["looks"] == 2
    assert forced["rows"] == whole.results["rows"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The test suites were looked at 2 times, not once." in page

    def another(scores: Sequence[Score]) -> Choice:
        found = choose(scores)
        return found._replace(concept=min((s for s in scores if s.kind == "concept"), key=lambda s: s.mean))

    monkeypatch.setattr(study_module, "choose", another)
    with pytest.raises(
        UsageError,
        match=r"confirmation.json confirms \S+ \(layer \d, \w+ 64\), but .* the test suites are looked at once;",
    ):
        run(whole.config, tmp_path)


def _copy(source: Path, target: Path) -> None:
    for entry in ("sae", "meters"):
        (target / entry).symlink_to(source / entry)
    for name in ("study.json", "confirmation.json"):
        write_json(target / name, read_json(source / name))
    for file in (source / "validation").glob("*.json"):
        write_json(target / "validation" / file.name, read_json(file))


def test_stale_parts_are_measured_again(whole: Whole, tmp_path: Path) -> None:
    _copy(whole.out, tmp_path)
    (tmp_path / "meters").unlink()
    (tmp_path / "validation" / "layer-01.json").write_text("{torn")
    results, said = run(whole.config, tmp_path)
    assert plain(results) == plain(whole.results)
    assert [line.strip() for line in said if "fitting" in line] == ["layer 1: fitting and measuring 2 SAEs"]
    assert any("layer-01.json was made from other things (it cannot be read); measured again" in line for line in said)


def test_other_settings_want_another_folder(whole: Whole, tmp_path: Path) -> None:
    write_json(tmp_path / "study.json", read_json(whole.out / "study.json"))
    other = whole.config.model_copy(update={"rule": "least", "passages": 11})
    with pytest.raises(ConfigError, match=r"holds a study with other settings \(passages, rule\); give another --out"):
        run(other, tmp_path)
    with lock(tmp_path), pytest.raises(Locked, match="wait for it to end or choose another folder"):
        run(whole.config, tmp_path)


def test_too_little_text_is_said_before_the_first_sae(whole: Whole, tmp_path: Path) -> None:
    config = whole.config.model_copy(update={"test_passages": 4000})
    with pytest.raises(TooFewSamples, match="passages of 20 words; wanted 4000"):
        run(config, tmp_path)
    assert not (tmp_path / "sae").exists()


def test_results_and_report(whole: Whole) -> None:
    assert read_json(whole.out / "results.json") == whole.results
    found = parse_study(whole.results)
    assert found.confirmed.looks == 1
    with pytest.raises(ConfigError):
        parse_results(whole.results)
    for row in whole.results["rows"]:
        assert all(isinstance(v, str | int | float | bool | type(None)) for v in row.values())
        assert {"estimate", "low", "high", "seed", "method", "n_pairs"} <= set(row)
    assert {"title", "version", "hardware", "date", "command", "configuration", "rule"} <= set(whole.results)
    assert (whole.out / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_masked_architectures_learn_from_masked_text(values: dict[str, Any], tmp_path: Path) -> None:
    few = {"architectures": ["batchtopk", "masked-batchtopk"], "layers": [0], "seeds": [0]}
    results, said = run(build(StudyConfig, values | few, "test"), tmp_path)
    assert {s["architecture"] for s in results["saes"]} == set(few["architectures"])
    assert {c["architecture"] for c in results["cells"]} == {"", *few["architectures"]}
    infos = [load_trained(tmp_path, StudySAE(Cell(0, name, 64), 0)).info for name in few["architectures"]]
    assert infos[0].masking == {}
    assert infos[1].masking == build(StudyConfig, values, "test").masking.model_dump(mode="json")
    assert infos[1].digest != infos[0].digest
    stores = [
        json.loads((tmp_path / name / "layer-00" / "manifest.json").read_text()) for name in ("store", "store-masked")
    ]
    assert stores[0] != stores[1]
    assert any("2 SAEs after 1 blocks" in line for line in said)
    _, again = run(build(StudyConfig, values | few, "test"), tmp_path)
    assert not [line for line in again if "fitting" in line]
