"""A bench that was stopped goes on; what is stale is said and measured again."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.worlds import World

from perimetry.config import build
from perimetry.errors import Locked
from perimetry.pipeline.bench import run_bench
from perimetry.pipeline.bench_config import BenchConfig
from perimetry.pipeline.bench_parts import Part
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter
from perimetry.storage import lock, read_json, write_json

SMALL: dict[str, Any] = {
    "suites": ("typos", "case", "ocr"),
    "doses": (0.2, 0.5),
    "passages": 9,
    "words": 15,
    "clean_prompts": 40,
    "resamples": 100,
    "damage": ("ocr",),
    "damage_doses": (0.2,),
}


class Killed(BaseException):
    pass


def config(world: World, **changes: Any) -> BenchConfig:
    return build(BenchConfig, SMALL | {"text": str(world.corpus)} | changes, "test")


def bench(meter: Meter, settings: BenchConfig, out: Path, stop: str = "") -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if stop and text.startswith(stop):
            raise Killed

    results = run_bench([meter], settings, out, command="x", say=say)
    return {k: v for k, v in results.items() if k != "date"}, said


@pytest.fixture(scope="module")
def whole(world: World, meter: Meter, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("whole")
    return bench(meter, config(world), out)[0], out


def measured(said: list[str]) -> list[str]:
    return [line.split()[2].rstrip(":") for line in said if line.startswith("measuring suite")]


def test_killed_it_goes_on_with_the_next_suite(
    world: World, meter: Meter, whole: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    for stop in ("measuring suite case", "measuring suite ocr", "measuring false alarms"):
        with pytest.raises(Killed):
            bench(meter, config(world), tmp_path, stop)
        assert not (tmp_path / "results.json").exists()
    # What a killed process leaves under a temporary name is no result.
    (tmp_path / "suites" / ".tmp-case.json.1234").write_text("{")
    results, said = bench(meter, config(world), tmp_path)
    assert measured(said) == []
    assert [line for line in said if "measured before" in line] == [
        f"suite {name}: measured before, taken from {name}.json" for name in SMALL["suites"]
    ]
    assert results == whole[0]
    assert not list((tmp_path / "suites").glob(".tmp-*"))
    kept = read_json(tmp_path / "suites" / "ocr.json")["result"]
    assert Part.from_json(kept).to_json() == json.loads(json.dumps(kept)) | {
        "roc": [{**c, "fpr": tuple(c["fpr"]), "tpr": tuple(c["tpr"])} for c in kept["roc"]]
    }


def test_only_what_is_stale_is_measured_again(
    world: World, meter: Meter, whole: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    for name in SMALL["suites"]:
        write_json(tmp_path / "suites" / f"{name}.json", read_json(whole[1] / "suites" / f"{name}.json"))
    (tmp_path / "suites" / "case.json").write_text("{torn")
    results, said = bench(meter, config(world, pairs={"typos": 10}), tmp_path)
    assert measured(said) == ["typos", "case"]
    assert any(
        line
        == "suite typos: typos.json was made from other things (texts: pairs {}, now {'typos': 10}); measured again"
        for line in said
    )
    assert "suite case: case.json was made from other things (it cannot be read); measured again" in said
    rows = {(r["suite"], r["n_pairs"]) for r in results["rows"] if r["metric"] == "auroc"}
    assert rows == {("typos", 10), ("case", 9), ("ocr", 9)}
    again, said = bench(meter, config(world, pairs={"typos": 10}, resamples=120), tmp_path)
    assert measured(said) == list(SMALL["suites"])
    assert any("(resamples)" in line for line in said)
    assert again["rows"] != results["rows"]


def test_another_meter_never_takes_the_results_of_this_one(
    world: World, whole: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    settings = config(world, suites=("ocr",))
    write_json(tmp_path / "suites" / "ocr.json", read_json(whole[1] / "suites" / "ocr.json"))
    other = load_meter(world.meter)
    other.main = "l0"
    _, said = bench(other, settings, tmp_path)
    assert measured(said) == ["ocr"]
    assert any("(meters)" in line for line in said)
    other.digest = "unsaved"
    _, said = bench(other, settings, tmp_path)
    assert measured(said) == ["ocr"]
    _, said = bench(other, settings, tmp_path)
    assert measured(said) == ["ocr"], "results of a meter that was never saved are not taken for another's"


def test_two_runs_do_not_share_a_folder(world: World, meter: Meter, tmp_path: Path) -> None:
    with lock(tmp_path / "suites"), pytest.raises(Locked, match="wait for it to end or choose another folder"):
        bench(meter, config(world), tmp_path)


def test_examples_are_spread_and_named_by_their_dose(whole: tuple[dict[str, Any], Path]) -> None:
    titles = [entry["title"] for entry in whole[0]["examples"]]
    assert len(titles) == 10
    assert titles[0] == "typos, dose 20 %"
    assert {title.partition(",")[0].partition(":")[0] for title in titles} == set(SMALL["suites"])
    assert all(entry["clean"] is not None for entry in whole[0]["examples"])
