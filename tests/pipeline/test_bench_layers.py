"""Meters of several layers on the same suites: one run of the model, each as alone, compared beside the rows."""

from pathlib import Path

import pytest
from tests.shift.multi_worlds import MultiWorld, make_multi_world
from tests.shift.test_taps import counting
from tests.worlds import World, run_main

from perimetry.errors import PolicyMismatch
from perimetry.pipeline.bench import run_bench
from perimetry.pipeline.bench_config import BenchConfig
from perimetry.pipeline.bench_parts import score_prompts
from perimetry.report import build_report, parse_results
from perimetry.report.layers import layer_lines
from perimetry.shift.evidence import Extractor
from perimetry.shift.loading import load_meter

SMALL = {"suites": ("typos",), "passages": 12, "words": 15, "clean_prompts": 40, "resamples": 100, "doses": (0.2, 0.5)}


@pytest.fixture(scope="module")
def multi(world: World, tmp_path_factory: pytest.TempPathFactory) -> MultiWorld:
    return make_multi_world(world, tmp_path_factory.mktemp("multi"))


def config(world: World) -> BenchConfig:
    return BenchConfig.model_validate(SMALL | {"text": str(world.corpus)})


def test_each_meter_scores_as_alone(multi: MultiWorld, world: World) -> None:
    meters = list(multi.meter.meters.values())
    texts = ["the river ran over stone", "a house", "old people went over the hill and light"]
    prompts = meters[0].extractor.prepare(["0", "1", "2"], texts)
    with counting(multi.meter.lm) as ran:
        together = score_prompts(meters, prompts, "test", 4096, progress=False)
    assert ran.count("head") == 1, "one run of the model for all layers"
    for meter, table, lengths in zip(meters, together.tables, together.lengths, strict=True):
        alone = score_prompts([meter], prompts, "test", 4096, progress=False)
        assert alone.lengths[0].tolist() == lengths.tolist()
        assert table.keys() == alone.tables[0].keys()
        for name, values in alone.tables[0].items():
            assert table[name].tolist() == pytest.approx(values.tolist(), rel=1e-4, abs=1e-4), name


def test_layers_stand_beside_the_rows(multi: MultiWorld, world: World, tmp_path: Path) -> None:
    upper, lower = multi.meter.meters["layer-01"], multi.meter.meters["layer-00"]
    found = run_bench([upper, lower], config(world), tmp_path / "both", command="perimetry bench shift")
    alone = run_bench([upper], config(world), tmp_path / "one", command="perimetry bench shift")
    assert alone["layers"] == []
    assert found["seeds"] == [], "another layer is no other seed"
    areas = {(r["detector"], r["dose"]): r["estimate"] for r in alone["rows"] if r["metric"] == "auroc"}
    assert len(found["rows"]) == len(alone["rows"])
    for row in found["rows"]:
        if row["metric"] == "auroc":
            assert row["estimate"] == pytest.approx(areas[row["detector"], row["dose"]], abs=1e-6)
    assert {row["layer"] for row in found["layers"]} == {0, 1}
    assert {row["metric"] for row in found["layers"]} == {"auroc", "auroc_difference_out_of_fold"}
    below = run_bench([lower], config(world), tmp_path / "below", command="perimetry bench shift")
    wanted = {(r["detector"], r["dose"]): r["estimate"] for r in below["rows"] if r["metric"] == "auroc"}
    for row in found["layers"]:
        if row["layer"] == 0 and row["metric"] == "auroc":
            assert row["estimate"] == pytest.approx(wanted[row["detector"], row["dose"]], abs=1e-6)
    first, second = layer_lines(parse_results(found))
    assert (first.layer, second.layer, first.place) == (0, 1, "20 %")
    page = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    assert "Other layers" in page
    assert "Other layers" not in (tmp_path / "one" / "report.html").read_text(encoding="utf-8")
    build_report(found, tmp_path / "again.html")


def test_a_meter_over_several_layers_is_measured_layer_by_layer(
    multi: MultiWorld, world: World, tmp_path: Path
) -> None:
    (tmp_path / "small.toml").write_text(
        "[bench]\npassages = 12\nwords = 15\nclean_prompts = 40\nresamples = 100\ndoses = [0.5]\n"
    )
    asked = ["--suite", "typos", "--text", world.corpus, "--config", tmp_path / "small.toml", "--out", tmp_path / "q"]
    done = run_main("bench", "shift", multi.folder, *asked, "--json")
    assert done.code == 0, done.err
    assert "measuring suite typos: 24 texts, 2 meter(s)" in done.err
    assert {row["layer"] for row in done.json()["layers"]} == {0, 1}


def test_other_rules_of_counting_are_refused(multi: MultiWorld, world: World, tmp_path: Path) -> None:
    upper = load_meter(multi.folder / "taps" / "layer-01", lm=multi.meter.lm)
    lower = load_meter(multi.folder / "taps" / "layer-00", lm=multi.meter.lm)
    lower.extractor = Extractor(lower.lm, 0, lower.policy.model_copy(update={"exclude_special": False}))
    with pytest.raises(PolicyMismatch):
        run_bench([upper, lower], config(world), tmp_path / "no", command="x")
