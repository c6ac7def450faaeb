"""Meters on suites: rows that follow from the scores, and what is refused."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.worlds import World, run_main, text_of, write_jsonl

from perimetry.assets import Document, read_texts
from perimetry.config import build
from perimetry.errors import TooFewSamples, UnknownName, UsageError
from perimetry.measures.ranking import auroc
from perimetry.pipeline.bench import run_bench
from perimetry.pipeline.bench_config import BenchConfig
from perimetry.pipeline.bench_parts import measure
from perimetry.pipeline.bench_suites import build_suites, held_out
from perimetry.report import parse_results
from perimetry.shift.evidence import Extractor
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter
from perimetry.shift.tables import all_score_names

SMALL = {"suites": ("typos",), "passages": 12, "words": 15, "clean_prompts": 40, "resamples": 100}


def config(world: World, **changes: Any) -> BenchConfig:
    return build(BenchConfig, SMALL | {"text": str(world.corpus)} | changes, "test")


@pytest.fixture(scope="module")
def clean(world: World) -> list[Document]:
    return held_out(str(world.corpus), progress=False)


@pytest.fixture(scope="module")
def results(world: World, meter: Meter, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("bench")
    return run_bench([meter], config(world), out, command="perimetry bench shift")


def test_a_text_of_ones_own_is_taken_whole(world: World, clean: list[Document]) -> None:
    assert clean == list(read_texts(world.corpus))


def test_rows_equal_the_scores_of_the_cases(world: World, meter: Meter, clean: list[Document]) -> None:
    settings = config(world)
    (suite,) = build_suites(meter, settings, clean)
    part = measure([meter], suite, settings)
    assert len(part.roc) > 0
    found = {(r.detector, r.dose): r for r in part.rows if r.metric == "auroc"}
    for dose in (0.2, 0.5):
        cases = [c for c in suite.cases if c.dose == dose or not c.shifted]
        readings = meter.score([c.text for c in cases], detectors="all", explain=False)
        shifted = torch.tensor([c.shifted for c in cases])
        for name in ("surprise", "nll", "tokens_per_word", "code_knn", "surprise.max"):
            values = torch.tensor([r.scores[name] for r in readings])
            estimate = float(auroc(values[~shifted], values[shifted]))
            assert found[name, dose].estimate == pytest.approx(estimate, abs=1e-9), (name, dose)
            assert (found[name, dose].n_shifted, found[name, dose].n_clean) == (12, 12)


def test_the_results_are_whole(results: dict[str, Any], meter: Meter) -> None:
    parse_results(results)
    assert results["main"] == meter.main
    names = {r["detector"] for r in results["rows"] if r["metric"] == "auroc"}
    assert names == set(all_score_names())
    kinds = {r["detector"]: r["kind"] for r in results["rows"]}
    assert (kinds["surprise"], kinds["nll"], kinds["tokens_per_word"]) == ("concept", "baseline", "baseline")
    assert results["configuration"]["meters"][0]["false_alarms"]
    for row in results["false_alarms"]:
        assert 0 <= row["low"] <= row["high"] <= 1
    assert not any(math.isnan(r["estimate"]) for r in results["rows"])


def test_the_same_call_gives_the_same_rows(world: World, meter: Meter, results: dict[str, Any], tmp_path: Path) -> None:
    again = run_bench([meter], config(world), tmp_path, command="perimetry bench shift")
    for part in ("rows", "false_alarms", "p_values", "examples", "roc"):
        assert again[part] == results[part], part
    other = run_bench([meter], config(world, seed=9), tmp_path, command="perimetry bench shift")
    assert other["rows"] != results["rows"]


def test_a_suite_of_ones_own(world: World, meter: Meter, tmp_path: Path) -> None:
    clean = [{"id": f"c{i}", "text": text_of(i, 12), "shifted": False, "pair": str(i)} for i in range(10)]
    rows = [*clean, *({"id": f"s{i}", "text": "x" * (40 + i), "shifted": True, "pair": str(i)} for i in range(10))]
    suite = write_jsonl(tmp_path / "mine.jsonl", rows)
    asked = ("bench", "shift", world.meter, "--suite", suite, "--text", world.corpus, "--out", tmp_path / "b")
    done = run_main(*asked, "--config", _settings(tmp_path), "--json")
    assert done.code == 0, done.err
    found = [r for r in done.json()["rows"] if r["metric"] == "auroc" and r["detector"] == "tokens_per_word"]
    assert found
    assert all(r["estimate"] == 1.0 and r["suite"] == "mine" for r in found)
    assert (tmp_path / "b" / "report.html").is_file()
    lonely = write_jsonl(tmp_path / "lonely.jsonl", [{k: v for k, v in row.items() if k != "pair"} for row in rows])
    asked = (
        "bench",
        "shift",
        world.meter,
        "--suite",
        lonely,
        "--text",
        world.corpus,
        "--out",
        tmp_path / "c",
        "--json",
    )
    kind, message = run_main(*asked).error()
    assert kind == "TooFewSamples"
    assert "the same 'pair' to each shifted text and its clean partner" in message
    plain = run_main("report", tmp_path / "b", "--out", tmp_path / "again.html")
    assert plain.code == 0
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "b" / "report.html").read_bytes()


def _settings(tmp_path: Path) -> Path:
    file = tmp_path / "bench.toml"
    file.write_text("[bench]\nclean_prompts = 40\nresamples = 100\npassages = 12\nwords = 15\n")
    return file


def test_an_unknown_suite_gives_the_nearest(world: World, meter: Meter, clean: list[Document]) -> None:
    with pytest.raises(UnknownName, match="unknown suite 'typo'; the nearest name is 'typos'"):
        build_suites(meter, config(world, suites=("typo",)), clean)


def test_too_little_held_out_text_is_named(world: World, meter: Meter, clean: list[Document], tmp_path: Path) -> None:
    with pytest.raises(TooFewSamples, match="give more or longer documents"):
        build_suites(meter, config(world, passages=5000), clean)
    short = write_jsonl(tmp_path / "short.jsonl", [{"id": i, "text": "x"} for i in range(5)])
    suite = write_jsonl(
        tmp_path / "s.jsonl",
        [
            {"id": f"{i}{s}", "text": text_of(i, 9), "shifted": s, "pair": str(i)}
            for i in range(9)
            for s in (True, False)
        ],
    )
    with pytest.raises(TooFewSamples, match="the held-out text gives 0 clean prompts; wanted at least 20"):
        run_bench([meter], config(world, text=str(short), suites=(str(suite),)), tmp_path / "o", command="x")


def test_presets_come_in_by_a_flag(world: World, tmp_path: Path) -> None:
    asked = ("bench", "shift", world.meter, "--suite", "typos", "--text", world.corpus, "--out", tmp_path / "q")
    done = run_main(*asked, "--preset", "quick", "--config", _settings(tmp_path), "--json")
    assert done.code == 0, done.err
    found = done.json()
    assert {r["dose"] for r in found["rows"] if r["metric"] == "auroc"} == {0.05, 0.2, 0.5}
    assert found["configuration"]["bench"]["passages"] == 12, "the file stands above the preset"
    assert {e["measure"] for e in found["damage"]} == {"kl", "nll_rise"}
    assert found["command"].startswith("perimetry bench shift ")
    assert "--preset quick" in found["command"]
    assert "measuring suite typos: 48 texts, 1 meter(s)" in done.err
    again = run_main(*asked, "--preset", "quick", "--config", _settings(tmp_path), "--json")
    assert "suite typos: measured before" in again.err
    assert {k: v for k, v in again.json().items() if k != "date"} == {k: v for k, v in found.items() if k != "date"}
    kind, message = run_main(*asked, "--preset", "quik", "--json").error()
    assert (kind, "the nearest name is 'quick'" in message) == ("UnknownName", True)


def test_harmless_families_get_alarm_rates(world: World, meter: Meter, clean: list[Document]) -> None:
    settings = config(world)
    (suite,) = build_suites(meter, settings, clean)
    rows = measure([meter], suite._replace(benign=("typos",)), settings).rows
    rates = [r for r in rows if r.metric == "alarm_rate_at_5" and r.detector == meter.main]
    assert {r.family for r in rates} == {"all", "typos", "clean"}
    shifted = [c for c in suite.cases if c.shifted]
    readings = meter.score([c.text for c in shifted], alpha=0.05, explain=False)
    share = sum(r.flagged for r in readings) / len(readings)
    assert next(r for r in rates if r.family == "all").estimate == pytest.approx(share)


def test_meters_of_other_seeds_come_in_by_a_flag(world: World, meter: Meter, tmp_path: Path) -> None:
    asked = (
        "bench",
        "shift",
        world.meter,
        "--suite",
        "typos",
        "--text",
        world.corpus,
        "--out",
        tmp_path / "q",
        "--json",
    )
    kind, message = run_main(*asked, "--also", world.meter, "--config", _settings(tmp_path)).error()
    assert kind == "UsageError"
    assert "two meters of layer 1 have SAEs of seed 0; rows are told apart by layer and seed" in message
    other = load_meter(world.meter)
    other.info = other.info.model_copy(update={"seed": 7})
    found = run_bench([meter, other], config(world, doses=(0.5,)), tmp_path / "two", command="x")
    assert {r["seed"] for r in found["rows"]} == {0, 7}
    many = [r for r in found["seeds"] if r["metric"] == "auroc"]
    assert all((r["seeds"], r["least"]) == (2, r["greatest"]) for r in many), "the same SAE twice"
    other.extractor = Extractor(other.lm, 1, other.policy.model_copy(update={"max_norm": 1e6}))
    with pytest.raises(UsageError, match="two meters read layer 1 but count other tokens"):
        run_bench([meter, other], config(world), tmp_path / "three", command="x")
    judge = Meter(meter.extractor, meter.sae, other.info, meter.normal, main="l0", details=meter.details)
    with pytest.raises(UsageError, match="the meters judge by surprise and l0; one main score is wanted"):
        run_bench([meter, judge], config(world), tmp_path / "three", command="x")
