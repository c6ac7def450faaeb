"""Evaluations as a run: killed anywhere, with controls, refusals and comparisons, on tiny dictionaries."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.worlds import FLAGS, World, run_main

from perimetry.config import build
from perimetry.errors import AssetError, ConfigError, Incompatible, MissingFile, TooFewSamples, UnknownName, UsageError
from perimetry.evals.sae import HEADLINES, SAE_EVALS
from perimetry.evals.sae.fidelity import Fidelity
from perimetry.pipeline import evaluation_controls
from perimetry.pipeline.evaluation import run_evaluation
from perimetry.pipeline.evaluation_config import (
    CONTROLS,
    EVALUATION_PRESETS,
    EvaluationConfig,
    with_evaluation_preset,
)
from perimetry.pipeline.evaluation_parts import is_refusal
from perimetry.pipeline.evaluation_subjects import names_of, subjects_of
from perimetry.report.schema_evaluation import parse_evaluation
from perimetry.runtime import Runtime
from perimetry.sae.formats import load_sae, save_sae
from perimetry.sae.formats.hashing import tensor_hash
from perimetry.storage import read_json

RUNTIME = Runtime(torch.device("cpu"), torch.float32)
SUITES = ("fidelity", "absorption", "probing", "ood_probing", "ground_truth", "stability")


class Killed(BaseException):
    pass


class Trained(NamedTuple):
    paths: tuple[Path, Path]
    config: EvaluationConfig


class Whole(NamedTuple):
    results: dict[str, Any]
    out: Path


@pytest.fixture(scope="module")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two dictionaries of one recipe, a seed each."""
    out = tmp_path_factory.mktemp("trained")
    words = ["train", "--model", world.model, "--text", world.corpus, "--layer", "1", "--context", "32"]
    words += ["--width", "64", "--k", "6", "--tokens", "4096", "--seed", "0", "--seed", "1", "--out", out]
    settings = out / "few.toml"
    settings.write_text("[train]\nbatch = 256\nfit_tokens = 1024\nthreshold_tokens = 512\n")
    made = run_main(*words, "--config", settings, "--json", "--quiet", *FLAGS)
    assert made.code == 0, made.err
    paths = [out / f"seed-{seed}" / "sae" for seed in (0, 1)]
    given = {"suites": SUITES, "fidelity": {"text": str(world.corpus)}, "stability": {"text": str(world.corpus)}}
    config = build(EvaluationConfig, with_evaluation_preset(given, "tiny"), "test")
    assert len(paths) == 2
    return Trained((paths[0], paths[1]), config)


@pytest.fixture(scope="module")
def whole(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Never stopped; read only."""
    out = tmp_path_factory.mktemp("whole")
    return Whole(run_evaluation(trained.paths, trained.config, out, RUNTIME), out)


def plain(results: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on when and how often a run was stopped."""
    return {k: v for k, v in results.items() if k not in ("date", "hardware", "command")}


def stopping(line: str) -> Callable[[str], None]:
    def say(text: str) -> None:
        if text.strip().startswith(line):
            raise Killed

    return say


def test_every_dictionary_and_control_is_measured(whole: Whole) -> None:
    rows = whole.results["rows"]
    assert [one["name"] for one in whole.results["saes"]] == ["seed-0", "seed-1"]
    assert whole.results["refused"] == []
    for name, metrics in HEADLINES.items():
        for sae in ("seed-0", "seed-1"):
            mine = {r["metric"] for r in rows if (r["sae"], r["evaluation"], r["control"]) == (sae, name, "")}
            assert set(metrics) - {"loss_recovered"} <= mine, (
                name,
                sae,
            )  # a random model loses nothing that could come back
    judged = SUITES[:4]
    for sae, control, name in itertools.product(("seed-0", "seed-1"), CONTROLS, judged):
        assert [r for r in rows if (r["sae"], r["control"], r["evaluation"]) == (sae, control, name)]
        margins = [r for r in rows if (r["sae"], r["against"], r["evaluation"]) == (sae, control, name)]
        # In another model other letters qualify, maybe none of the same.
        assert margins or (control, name) == ("untrained_model", "absorption")
        assert all(r["p_value"] is not None and r["low"] <= r["estimate"] <= r["high"] for r in margins)
    assert {r["control"] for r in rows if r["evaluation"] == "ground_truth"} == {""}


def test_differences_are_of_the_numbers(whole: Whole) -> None:
    rows = whole.results["rows"]

    def of(row: dict[str, Any], sae: str, control: str) -> float:
        key = ("evaluation", "metric", "case", "k", "arm")
        (found,) = [
            r["estimate"]
            for r in rows
            if not r["against"] and (r["sae"], r["control"]) == (sae, control) and all(r[k] == row[k] for k in key)
        ]
        return found

    seen = 0
    for row in (r for r in rows if r["against"]):
        other = (row["against"], "") if row["against"] == "seed-0" else (row["sae"], row["against"])
        if row["evaluation"] == "absorption" and row["against"] == "untrained_model":
            continue  # other letters qualify there: the difference is over those that both have
        assert row["estimate"] == pytest.approx(of(row, row["sae"], "") - of(row, *other), abs=1e-9)
        seen += 1
    assert seen > 50


def test_latents_in_common(whole: Whole) -> None:
    cases = {r["case"] for r in whole.results["rows"] if r["evaluation"] == "stability" and r["sae"] == "seed-0"}
    assert cases == {"", "seed-1", "seed-1 back"}
    (diff,) = whole.results["feature_diffs"]
    kept = read_json(whole.out / diff["file"])
    kinds = [row["kind"] for row in kept["rows"]]
    assert diff["counts"] == {kind: kinds.count(kind) for kind in diff["counts"]}
    assert sum(diff["counts"].values()) == len(kinds) > 0


def test_the_report_shows_it(whole: Whole) -> None:
    parse_evaluation(whole.results)
    page = (whole.out / "report.html").read_text(encoding="utf-8")
    for text in (
        "What came out",
        "At a glance",
        "Over the controls",
        "Against the first dictionary",
        "Latents in common",
    ):
        assert text in page
    assert page.count("<svg") >= 5
    assert "What could not be judged" not in page


def test_killed_anywhere_it_ends_with_the_same_numbers(trained: Trained, whole: Whole, tmp_path: Path) -> None:
    for stop in (
        "2/3",
        "seed-1: untrained_model",
        "absorption seed-0",
        "probing seed-1 frozen",
        "stability seed-0 and",
    ):
        with pytest.raises(Killed):
            run_evaluation(trained.paths, trained.config, tmp_path, RUNTIME, say=stopping(stop))
        assert not (tmp_path / "results.json").exists()
    said: list[str] = []
    results = run_evaluation(trained.paths, trained.config, tmp_path, RUNTIME, say=said.append)
    assert plain(results) == plain(whole.results)
    assert [line for line in said if "fidelity seed-0: measured before" in line]
    said.clear()
    again = run_evaluation(trained.paths, trained.config, tmp_path, RUNTIME, say=said.append)
    assert plain(again) == plain(whole.results)
    assert all("measured before" in line for line in said if line.strip().startswith(SUITES))


def test_controls_share_what_they_are_trained_on(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = evaluation_controls.harvest, [0]

    def counted(*args: Any, **more: Any) -> Any:
        calls[0] += 1
        return honest(*args, **more)

    monkeypatch.setattr(evaluation_controls, "harvest", counted)
    config = trained.config.model_copy(update={"suites": ("fidelity",)})
    first = run_evaluation(trained.paths, config, tmp_path, RUNTIME)
    assert calls[0] == 2, "one text of the model and one of its untrained twin, for two dictionaries"
    assert not (tmp_path / "controls" / "stores").exists(), "activations are not kept once they were learnt from"
    assert plain(run_evaluation(trained.paths, config, tmp_path, RUNTIME)) == plain(first)
    assert calls[0] == 2


def test_a_dictionary_without_a_manifest_is_known_by_its_tensors(
    trained: Trained, world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained.paths[0], folder)
    (folder / "manifest.json").unlink()
    [found] = subjects_of([folder], RUNTIME, model=str(world.model))
    assert found.digest == tensor_hash(found.loaded.sae)
    weights = load_file(folder / "sae_weights.safetensors")
    save_file({name: value * 2 for name, value in weights.items()}, folder / "sae_weights.safetensors")
    [other] = subjects_of([folder], RUNTIME, model=str(world.model))
    assert other.digest != found.digest, "the same folder with other weights is another dictionary"


def test_other_text_is_measured_again(trained: Trained, world: World, tmp_path: Path) -> None:
    text = tmp_path / "own.jsonl"
    lines = world.corpus.read_text(encoding="utf-8").splitlines()
    text.write_text("\n".join(lines[: len(lines) // 2]), encoding="utf-8")
    few = {"suites": ("fidelity",), "controls": (), "fidelity": {"text": str(text)}}
    config = build(EvaluationConfig, with_evaluation_preset(few, "tiny"), "test")
    first = run_evaluation(trained.paths[:1], config, tmp_path / "out", RUNTIME)
    text.write_text("\n".join(lines[len(lines) // 2 :]), encoding="utf-8")
    said: list[str] = []
    second = run_evaluation(trained.paths[:1], config, tmp_path / "out", RUNTIME, say=said.append)
    assert any("was made from other things (files)" in line for line in said)
    assert first["rows"] != second["rows"]


def test_what_cannot_be_judged_is_told_and_the_rest_goes_on(trained: Trained, world: World, tmp_path: Path) -> None:
    few = {
        "suites": ("fidelity", "absorption"),
        "controls": (),
        "fidelity": {"text": str(world.corpus)},
        "absorption": {"least_letters": 26},
    }
    config = build(EvaluationConfig, with_evaluation_preset(few, "tiny"), "test")
    results = run_evaluation(trained.paths[:1], config, tmp_path, RUNTIME)
    (refused,) = results["refused"]
    assert (refused["sae"], refused["evaluation"], refused["control"]) == ("seed-0", "absorption", "")
    assert refused["why"].startswith("TooFewSamples: ")
    assert {r["evaluation"] for r in results["rows"]} == {"fidelity"}
    assert "What could not be judged" in (tmp_path / "report.html").read_text(encoding="utf-8")
    alone = build(EvaluationConfig, with_evaluation_preset(few | {"suites": ("absorption",)}, "tiny"), "test")
    with pytest.raises(UsageError, match="nothing could be judged: absorption: TooFewSamples"):
        run_evaluation(trained.paths[:1], alone, tmp_path, RUNTIME)


def test_a_dictionary_without_a_recipe_has_no_trained_control(trained: Trained, world: World, tmp_path: Path) -> None:
    loaded = load_sae(trained.paths[0])
    save_sae(loaded.sae, tmp_path / "bare", loaded.info.model_copy(update={"train": {}}))
    few = {"suites": ("fidelity",), "fidelity": {"text": str(world.corpus)}}
    config = build(EvaluationConfig, with_evaluation_preset(few, "tiny"), "test")
    results = run_evaluation([tmp_path / "bare"], config, tmp_path / "out", RUNTIME)
    assert {one["control"] for one in results["refused"]} == {"frozen_decoder", "untrained_model"}
    assert all("does not say how it was trained" in one["why"] for one in results["refused"])
    assert {r["control"] for r in results["rows"]} == {"", "untrained_dictionary"}


def test_whose_model_is_another_one_is_refused(trained: Trained, world: World, tmp_path: Path) -> None:
    loaded = load_sae(trained.paths[0])
    save_sae(loaded.sae, tmp_path / "other", loaded.info.model_copy(update={"revision": "0" * 40}))
    with pytest.raises(Incompatible, match="was trained on revision 000000000000 of"):
        subjects_of([tmp_path / "other"], RUNTIME)
    assert subjects_of([tmp_path / "other"], RUNTIME, model=str(world.model))[0].subject.place.layer == 1
    save_sae(loaded.sae, tmp_path / "nowhere", loaded.info.model_copy(update={"layer": None}))
    with pytest.raises(UsageError, match="says no block whose output it reads"):
        subjects_of([tmp_path / "nowhere"], RUNTIME)


def test_names_and_settings(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="was given twice"):
        names_of([tmp_path / "a", tmp_path / "b" / ".." / "a"])
    with pytest.raises(UsageError, match="no dictionary was given"):
        run_evaluation([], EvaluationConfig(), tmp_path, RUNTIME)
    with pytest.raises(UnknownName, match=r"evaluation 'probings'.*'probing'"):
        build(EvaluationConfig, {"suites": ["probings"]}, "test")
    with pytest.raises(ConfigError, match="names one twice"):
        build(EvaluationConfig, {"suites": ["tpp", "tpp"]}, "test")
    with pytest.raises(UnknownName, match="preset"):
        with_evaluation_preset({}, "quik")
    for name, values in EVALUATION_PRESETS.items():
        made = build(EvaluationConfig, values, name)
        assert build(EvaluationConfig, json.loads(made.model_dump_json()), name) == made
    many = EvaluationConfig(seeds=7)
    assert many.evaluation("probing").model_dump()["seeds"] == 7
    assert many.evaluation("ground_truth").model_dump()["seeds"] == tuple(range(7))
    assert many.evaluation("scr").model_dump()["draws"] == 7
    assert many.evaluation("fidelity") == Fidelity()
    assert set(SAE_EVALS) == {name for name in EvaluationConfig.model_fields if name in SAE_EVALS}
    assert not {name for name in HEADLINES if not SAE_EVALS[name].reliable}


def test_what_is_a_refusal() -> None:
    assert all(map(is_refusal, (TooFewSamples("x"), Incompatible("x"), ConfigError("x"))))
    assert not any(map(is_refusal, (AssetError("x"), MissingFile("x"))))
