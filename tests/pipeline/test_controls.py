"""The controls of the small world's meter: rows that follow from the scores, and a run that goes on where it was killed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.worlds import World

from perimetry.activations.twins import Twin
from perimetry.assets import Document
from perimetry.config import build
from perimetry.errors import Locked, TooFewSamples, UnknownName, UsageError
from perimetry.evals.control_rows import EXPECTED
from perimetry.evals.fallacious import predict_f3
from perimetry.measures.ranking import auroc
from perimetry.pipeline.bench_suites import build_suites, held_out
from perimetry.pipeline.controls import run_controls
from perimetry.pipeline.controls_config import ControlsConfig
from perimetry.pipeline.controls_parts import Bench, p_value_part
from perimetry.report import parse_results
from perimetry.report.controls import NAMES
from perimetry.sae.matching_pursuit import MatchingPursuitSAE
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter
from perimetry.storage import lock, read_json, write_json
from perimetry.suites import Suite

SMALL: dict[str, Any] = {
    **{"passages": 12, "words": 15, "clean_prompts": 40, "shuffles": 100, "simulated": 1000, "resamples": 100},
    **{"scores": ("l0", "energy"), "acts": 400, "profile_tokens": 1000, "foresight_tokens": 500},
    **{"reference_tokens": 500, "calibration_prompts": 20},
}
PARTS = ("false_concepts", "dictionaries", "untrained_model", "clean", "p_values")
NAMED = ("surprise", "l0", "energy")


class Killed(BaseException):
    pass


def config(world: World, **changes: Any) -> ControlsConfig:
    return build(ControlsConfig, SMALL | {"text": str(world.corpus)} | changes, "test")


def measure(meter: Meter, settings: ControlsConfig, out: Path, stop: str = "") -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if stop and text.startswith(stop):
            raise Killed

    results = run_controls(meter, settings, out, command="x", say=say)
    return {k: v for k, v in results.items() if k != "date"}, said


@pytest.fixture(scope="module")
def whole(world: World, meter: Meter, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("controls")
    return measure(meter, config(world), out)[0], out


@pytest.fixture(scope="module")
def suite(world: World, meter: Meter) -> Suite:
    return build_suites(meter, config(world).bench(), held_out(str(world.corpus), progress=False))[0]


def rows_of(results: dict[str, Any], control: str, metric: str, *, judged: bool = True) -> list[dict[str, Any]]:
    rows = [r for r in results["controls"] if (r["control"], r["metric"]) == (control, metric)]
    return [r for r in rows if (r["holds"] is not None) == judged]


def texts(suite: Suite, dose: float) -> tuple[list[str], list[str]]:
    clean = {c.pair: c.text for c in suite.cases if not c.shifted}
    twins = [c for c in suite.cases if c.shifted and c.dose == dose]
    return [clean[c.pair] for c in twins], [c.text for c in twins]


def areas(meter: Meter, suite: Suite, dose: float, name: str) -> float:
    one, two = (
        torch.tensor([r.scores[name] for r in meter.score(side, detectors=[name], explain=False)])
        for side in texts(suite, dose)
    )
    return auroc(one, two)


def test_every_control_is_there_and_judged_as_it_says(whole: tuple[dict[str, Any], Path]) -> None:
    results = whole[0]
    assert parse_results(read_json(whole[1] / "results.json")).main == "surprise"
    assert {r["control"] for r in results["controls"]} == set(NAMES)
    for row in results["controls"]:
        assert (row["holds"] is None) == (row["expected"] == ""), row
        if row["expected"]:
            assert row["holds"] is EXPECTED[row["expected"]](row["estimate"], row["low"], row["high"]), row
        assert row["low"] <= row["high"]
        assert row["n"] >= 12
    assert {r["holds"] for r in results["controls"]} == {True, False, None}, "a world this small fails some controls"
    assert (whole[1] / "report.html").is_file()


def test_differences_are_those_of_the_scores(whole: tuple[dict[str, Any], Path], meter: Meter, suite: Suite) -> None:
    rows = rows_of(whole[0], "same_table", "auroc_difference")
    assert {(r["detector"], r["against"], r["dose"]) for r in rows} == {
        (*pair, dose)
        for pair in (("surprise", "random_dictionary"), ("recon_error", "shuffled_decoder"))
        for dose in (0.05, 0.2)
    }
    for row in rows:
        gap = areas(meter, suite, row["dose"], row["detector"]) - areas(meter, suite, row["dose"], row["against"])
        assert row["estimate"] == pytest.approx(gap, abs=1e-9), row


def test_plain_areas_stand_beside_and_give_the_differences(whole: tuple[dict[str, Any], Path]) -> None:
    plain = {
        (r["against"], r["detector"], r["dose"]): r["estimate"]
        for control in ("untrained_sae", "untrained_model")
        for r in rows_of(whole[0], control, "auroc", judged=False)
    }
    for control, label in (("untrained_sae", "untrained SAE"), ("untrained_model", "untrained model")):
        found = [r for r in rows_of(whole[0], control, "auroc_difference") if r["against"].endswith(f", {label}")]
        assert {(r["detector"], r["dose"]) for r in found} == {(n, d) for n in NAMED for d in (0.05, 0.2)}
        for row in found:
            gap = plain["trained SAE", row["detector"], row["dose"]] - plain[label, row["detector"], row["dose"]]
            assert row["estimate"] == pytest.approx(gap, abs=1e-9), row
            assert row["expected"] == "above 0"
    beside = rows_of(whole[0], "untrained_model", "auroc_difference", judged=False)
    assert len(beside) == 6
    for row in beside:
        assert row["against"] == f"{row['detector']}, untrained model, both with untrained SAEs"
        place = (row["detector"], row["dose"])
        gap = plain["untrained SAE", *place] - plain["untrained model", *place]
        assert row["estimate"] == pytest.approx(gap, abs=1e-9), row


def test_an_untrained_model_is_held_against_the_best_of_the_surface(whole: tuple[dict[str, Any], Path]) -> None:
    plain = {
        (r["detector"], r["dose"]): r["estimate"] for r in rows_of(whole[0], "untrained_model", "auroc", judged=False)
    }
    found = [r for r in rows_of(whole[0], "untrained_model", "auroc_difference") if r["expected"] == "not above 0"]
    assert {(r["detector"], r["dose"]) for r in found} == {(n, d) for n in NAMED for d in (0.05, 0.2)}
    for row in found:
        surface = {n: plain[n, row["dose"]] for n in ("tokens_per_word", "unigram_surprisal", "length")}
        assert row["against"] == f"{min(surface, key=lambda n: (-surface[n], n))}, no model"
        assert row["estimate"] == pytest.approx(plain[row["detector"], row["dose"]] - max(surface.values()), abs=1e-9)


def test_a_permuted_decoder_is_told_by_scores_that_decode(whole: tuple[dict[str, Any], Path]) -> None:
    found = rows_of(whole[0], "permuted_decoder", "auroc_difference")
    assert {r["detector"] for r in found} == {"energy", "recon_error", "recon_relative"}
    assert any(r["estimate"] != 0 for r in found)


def test_false_concepts_are_those_of_the_evaluation(
    whole: tuple[dict[str, Any], Path], meter: Meter, suite: Suite
) -> None:
    twins = [Twin(str(i), *pair) for i, pair in enumerate(zip(*texts(suite, 0.2), strict=True))]
    wanted = predict_f3(meter, twins, resamples=100, seed=1)
    entry = next(e for e in whole[0]["false_concepts"] if e["dose"] == 0.2)
    assert entry["rows"] == [row.to_json() for row in wanted.rows]
    assert entry["tokens"] == wanted.tokens
    for metric in ("precision", "recall", "f_score", "informedness"):
        (row,) = [
            r
            for r in rows_of(whole[0], "f2_predicts_f3", f"{metric}_difference")
            if (r["dose"], r["against"]) == (0.2, "fallacious_f1")
        ]
        (same,) = [
            r
            for r in wanted.rows
            if (r.detector, r.against, r.oracle, r.words, r.metric)
            == ("fallacious_f2", "fallacious_f1", "f3", "all", metric)
        ]
        assert (row["estimate"], row["low"], row["high"]) == (same.estimate, same.low, same.high)
        plain = rows_of(whole[0], "f2_predicts_f3", metric, judged=False)
        assert {r["detector"] for r in plain} == {"active", "fallacious_f1", "fallacious_f2"}
    (size,) = [r for r in rows_of(whole[0], "f2_predicts_f3", "f3_concepts") if r["dose"] == 0.2]
    assert size["estimate"] == pytest.approx(wanted.f3.estimate)


def test_nothing_is_found_where_nothing_is(whole: tuple[dict[str, Any], Path]) -> None:
    halves = rows_of(whole[0], "clean_against_clean", "auroc")
    assert [r["detector"] for r in halves] == list(NAMED)
    assert all(r["holds"] for r in halves)
    coins = [r for r in whole[0]["controls"] if r["control"] == "shuffled_labels"]
    assert [(r["metric"], r["dose"]) for r in coins] == [
        (metric, dose) for dose in (0.05, 0.2) for metric in ("mean_auroc", "missed_share")
    ]
    assert all(r["holds"] for r in coins)


def test_p_values_are_those_of_the_readings(
    whole: tuple[dict[str, Any], Path], world: World, meter: Meter, suite: Suite
) -> None:
    settings = config(world)
    clean = held_out(str(world.corpus), progress=False)
    part = p_value_part(Bench(meter, settings, clean, suite))
    assert [r for r in whole[0]["controls"] if "p_values" in r["control"]] == part["controls"]
    held = [r for r in part["controls"] if r["control"] == "p_values"]
    assert sum(r["n"] for r in held) == 40
    assert sum(sum(entry["counts"]) for entry in whole[0]["p_values"]) == 40
    labels = meter.normal.calibration.groups.labels
    assert {r["against"] for r in held} <= {*labels, "pooled"}
    few = [Document(f"c{i}", "the cat sat on the mat in the morning.", {}) for i in range(9)]
    with pytest.raises(TooFewSamples, match="the held-out text gives 9 clean prompts; wanted at least 20"):
        p_value_part(Bench(meter, settings, few, suite))


def test_killed_it_goes_on_with_the_next_part(
    world: World, meter: Meter, whole: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    for stop in ("measuring dictionaries", "measuring a language model", "measuring p-values"):
        with pytest.raises(Killed):
            measure(meter, config(world), tmp_path, stop)
        assert not (tmp_path / "results.json").exists()
    (tmp_path / "controls" / ".tmp-clean.json.1234").write_text("{")
    results, said = measure(meter, config(world), tmp_path)
    assert [line for line in said if line.startswith("measuring")] == ["measuring p-values of clean text"]
    assert sum("measured before" in line for line in said) == 4
    assert results == whole[0]
    assert not list((tmp_path / "controls").glob(".tmp-*"))


def test_only_what_is_stale_is_measured_again(
    world: World, meter: Meter, whole: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    for name in PARTS:
        write_json(tmp_path / "controls" / f"{name}.json", read_json(whole[1] / "controls" / f"{name}.json"))
    (tmp_path / "controls" / "false_concepts.json").write_text("{torn")
    results, said = measure(meter, config(world, shuffles=120), tmp_path)
    assert [line for line in said if line.startswith("measuring")] == [
        "measuring false concepts against their oracle",
        "measuring clean text against clean text",
    ]
    assert any("(settings)" in line for line in said)
    assert {r["n"] for r in rows_of(results, "shuffled_labels", "missed_share")} == {120}
    other = load_meter(world.meter)
    other.main = "l0"
    _, said = measure(other, config(world), tmp_path)
    assert sum(line.startswith("measuring") for line in said) == 5, "no part of another meter is taken"


def test_refusals(world: World, meter: Meter, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="'surprize'; the nearest name is 'surprise'"):
        measure(meter, config(world, scores=("surprize",)), tmp_path)
    with lock(tmp_path / "controls"), pytest.raises(Locked, match="wait for it to end or choose another folder"):
        measure(meter, config(world), tmp_path)
    other = load_meter(world.meter)
    other.sae = MatchingPursuitSAE.tiny()
    with pytest.raises(UsageError, match="'matching_pursuit' has no untrained twin to hold it against"):
        measure(other, config(world), tmp_path)
    assert not (tmp_path / "results.json").exists()
