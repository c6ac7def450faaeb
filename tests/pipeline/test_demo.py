"""The demo on the tiny world: every step, stopped between steps, and what it refuses."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.worlds import World, run_main, text_of, write_jsonl

from perimetry.config import build
from perimetry.errors import ConfigError
from perimetry.pipeline import bench_suites
from perimetry.pipeline import demo as demo_module
from perimetry.pipeline.demo import PRESETS, DemoConfig, next_commands, run_demo
from perimetry.report import parse_results
from perimetry.runtime import Runtime
from perimetry.shift.loading import load_meter
from perimetry.shift.tables import all_score_names
from perimetry.storage import hash_file, read_json

RUNTIME = Runtime(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("demo") / "text.jsonl"
    return write_jsonl(file, [{"id": f"t{i}", "text": text_of(f"t{i}", 160)} for i in range(700)])


@pytest.fixture
def config(world: World, text: Path, monkeypatch: pytest.MonkeyPatch) -> DemoConfig:
    """A demo whose asset is a file of ours; assets themselves are tested elsewhere."""
    for module in (demo_module, bench_suites):
        monkeypatch.setattr(module, "ASSETS", {str(text): None})
    values: dict[str, Any] = {
        "model": str(world.model),
        "text": str(text),
        "layer": 1,
        "context": 64,
        "seeds": (0, 1),
        "recipe": PRESETS["tiny"]["recipe"] | {"width": 64, "k": 6, "tokens": 4096},
        "meter": PRESETS["tiny"]["meter"] | {"words_low": 5, "words_high": 24},
        "bench": PRESETS["tiny"]["bench"] | {"suites": ("typos",), "words": 20},
    }
    return build(DemoConfig, values, "test")


class Stopped(Exception):
    pass


def stop_at(step: str) -> Any:
    def say(text: str) -> None:
        if text.startswith(step):
            raise Stopped(step)

    return say


def identities(out: Path) -> dict[str, str]:
    """Hashes of everything that is learned."""
    return {p.relative_to(out).as_posix(): hash_file(p) for p in sorted(out.rglob("manifest.json"))}


def without_times(results: dict[str, Any]) -> dict[str, Any]:
    points = [{k: v for k, v in p.items() if "per_s" not in k} for c in results["training"] for p in c["points"]]
    kept = {k: v for k, v in results.items() if k not in ("date", "training", "hardware")}
    return kept | {"points": points}


@pytest.mark.slow
def test_stopped_anywhere_it_ends_with_the_same_results(config: DemoConfig, tmp_path: Path) -> None:
    whole = run_demo(config, tmp_path / "whole", RUNTIME)
    cut = tmp_path / "cut"
    for step in ("2/4", "     seed 1", "3/4", "4/4", "     measuring suite"):
        with pytest.raises(Stopped):
            run_demo(config, cut, RUNTIME, say=stop_at(step))
        assert not (cut / "results.json").exists()
    again = run_demo(config, cut, RUNTIME)
    assert identities(cut) == identities(tmp_path / "whole")
    assert without_times(again) == without_times(whole)
    _check_results(whole, tmp_path / "whole", config)
    assert without_times(run_demo(config, cut, RUNTIME)) == without_times(whole), "finished, it only measures again"
    other = config.model_copy(update={"seeds": (5,)})
    with pytest.raises(ConfigError, match=r"holds a demo with other settings \(seeds\); give another --out"):
        run_demo(other, cut, RUNTIME)


def _check_results(results: dict[str, Any], out: Path, config: DemoConfig) -> None:
    assert read_json(out / "results.json") == json.loads(json.dumps(results))
    parse_results(results)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "http://" not in page.replace("http://www.w3.org", "")
    aurocs = [r for r in results["rows"] if r["metric"] == "auroc" and r["suite"] == "typos"]
    assert {r["seed"] for r in aurocs} == {0, 1}
    assert {r["detector"] for r in aurocs} == set(all_score_names())
    assert {0.05, 0.1, 0.2, 0.5} <= {r["dose"] for r in aurocs}
    assert all(0 <= r["low"] <= r["estimate"] <= r["high"] <= 1 for r in aurocs)
    assert {row["alpha"] for row in results["false_alarms"]} == {0.01, 0.05, 0.1}
    assert [c["label"] for c in results["training"]] == ["seed 0", "seed 1"]
    assert results["main"] == config.meter.main
    assert len(results["examples"]) > 0
    meter = load_meter(out / "meter")
    assert meter.info.seed == 0
    assert load_meter(out / "meter-seed-1").info.seed == 1
    commands = next_commands(out)
    assert len(commands) == 3
    done = run_main(*shlex.split(commands[0])[1:])
    assert done.code == 0, done.err


def test_a_text_of_ones_own_is_sent_elsewhere(config: DemoConfig, world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the demo needs a text asset, .* use train, calibrate and bench instead"):
        run_demo(config.model_copy(update={"text": str(world.corpus)}), tmp_path / "x", RUNTIME)


def test_presets_are_whole_configurations() -> None:
    for name, values in PRESETS.items():
        assert build(DemoConfig, values, name).recipe.steps > 0
    assert DemoConfig().seeds == (0, 1, 2)
