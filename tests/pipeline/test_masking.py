"""The masking study on the tiny world: arms that differ by their text alone, killed anywhere, claims that follow intervals."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tests.worlds import World

from perimetry.config import build
from perimetry.errors import ConfigError, UnknownName
from perimetry.evals.sae.units import Cell, Units, means
from perimetry.pipeline.masking import run_masking
from perimetry.pipeline.masking_config import (
    ARMS,
    CLAIMS,
    MASKING_PRESETS,
    PLAIN,
    MaskingStudyConfig,
    with_masking_preset,
)
from perimetry.pipeline.masking_rows import Dictionary, masking_rows, signs
from perimetry.report.schema_masking import parse_masking
from perimetry.runtime import Runtime
from perimetry.sae.formats import load_sae

RUNTIME = Runtime(torch.device("cpu"), torch.float32)


class Killed(BaseException):
    pass


class Whole(NamedTuple):
    config: MaskingStudyConfig
    results: dict[str, Any]
    out: Path


@pytest.fixture(scope="module")
def values(world: World) -> dict[str, Any]:
    given = with_masking_preset({"model": str(world.model), "text": str(world.corpus)}, "tiny")
    given["evaluation"] = {
        **given["evaluation"],
        "fidelity": {**given["evaluation"]["fidelity"], "text": str(world.corpus), "losses": False},
    }
    return given


@pytest.fixture(scope="module")
def whole(values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Never stopped; read only."""
    config, out = build(MaskingStudyConfig, values, "test"), tmp_path_factory.mktemp("masking")
    return Whole(config, run_masking(config, out, RUNTIME), out)


def stopping(line: str) -> Callable[[str], None]:
    def say(text: str) -> None:
        if text.strip().startswith(line):
            raise Killed

    return say


def plain(results: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in results.items() if k not in ("date", "hardware", "command")}


def test_arms_differ_by_their_text_alone(whole: Whole) -> None:
    infos = {
        (one["arm"], one["seed"]): load_sae(
            next((whole.out / "sae" / one["arm"]).glob(f"*seed-{one['seed']}*/sae"))
        ).info
        for one in whole.results["saes"]
    }
    assert set(infos) == set(itertools.product(ARMS, (0, 1)))
    for (arm, seed), info in infos.items():
        masking = whole.config.masking_of(arm)
        assert info.masking == ({} if masking is None else masking.model_dump(mode="json"))
        assert info.train == infos[PLAIN, seed].train
        assert info.policy == infos[PLAIN, seed].policy
    assert len({info.digest for info in infos.values()}) == len(infos)
    assert not list(whole.out.glob("sae/*/store")), "activations are not kept once they were learnt from"


def test_the_table_has_every_arm_seed_and_count(whole: Whole) -> None:
    rows = whole.results["rows"]
    assert whole.results["refused"] == []
    metrics = {
        "fidelity": "explained_variance",
        "absorption": "full_absorption",
        "probing": "auroc",
        "ood_probing": "auroc_ood",
    }
    for (evaluation, metric), arm, seed in itertools.product(metrics.items(), ARMS, (None, 0, 1)):
        mine = [
            r
            for r in rows
            if (r["evaluation"], r["metric"], r["arm"], r["seed"], r["l0_target"]) == (evaluation, metric, arm, seed, 4)
            and not r["case"]
        ]
        assert any(not r["against"] for r in mine), (evaluation, arm, seed)
        against = {r["against"] for r in mine} - {""}
        wanted = set(ARMS) - {"masked"} if arm == "masked" else {PLAIN} - {arm}
        assert against == wanted
        assert all(r["low"] <= r["value"] <= r["high"] for r in mine)


def test_all_arms_are_measured_at_the_same_count(whole: Whole, tmp_path: Path) -> None:
    def counts(results: dict[str, Any]) -> dict[str, float]:
        return {
            r["arm"]: r["value"] for r in results["rows"] if (r["metric"], r["seed"], r["against"]) == ("l0", None, "")
        }

    # Measured on other rows than it was settled on.
    settled = counts(whole.results)
    assert settled == pytest.approx(dict.fromkeys(ARMS, 4.0), abs=0.5)
    few = {"arms": (PLAIN, "masked"), "seeds": (0,), "settle": False}
    values = whole.config.model_dump() | few
    values["evaluation"]["suites"] = ("fidelity",)
    raw = counts(run_masking(build(MaskingStudyConfig, values, "test"), tmp_path, RUNTIME))
    assert all(abs(raw[arm] - settled[arm]) > 0.01 for arm in raw), "other thresholds, so other counts"


def test_over_seeds_is_the_mean_of_the_seeds(whole: Whole) -> None:
    rows = [r for r in whole.results["rows"] if r["evaluation"] == "probing"]
    key = ("arm", "against", "metric", "case", "k", "measured")
    for row in (r for r in rows if r["seed"] is None):
        mine = [r["value"] for r in rows if r["seed"] is not None and all(r[k] == row[k] for k in key)]
        assert len(mine) == row["seeds"] == 2
        assert row["value"] == pytest.approx(sum(mine) / 2, abs=1e-9)
        if row["against"]:
            assert row["seeds_above"] == sum(value > 0 for value in mine)


def test_killed_anywhere_it_ends_with_the_same_numbers(whole: Whole, tmp_path: Path) -> None:
    for stop in ("1/2  arm 3", "2/2", "absorption random", "probing same-compute-k-4-seed-1"):
        with pytest.raises(Killed):
            run_masking(whole.config, tmp_path, RUNTIME, say=stopping(stop))
        assert not (tmp_path / "results.json").exists()
    assert plain(run_masking(whole.config, tmp_path, RUNTIME)) == plain(whole.results)
    other = whole.config.model_copy(update={"seeds": (0, 2)})
    with pytest.raises(ConfigError, match=r"holds a masking study with other settings \(seeds\)"):
        run_masking(other, tmp_path, RUNTIME)


def test_the_report_says_each_claim(whole: Whole) -> None:
    parse_masking(whole.results)
    page = (whole.out / "report.html").read_text(encoding="utf-8")
    for claim in CLAIMS:
        assert (claim.said in page) is (claim.case == ""), "the made-up sets have no published shift"
    assert "same-compute" in page


@pytest.mark.parametrize(("shift", "verdict"), [(-0.2, "seen"), (0.2, "opposite"), (0.0, "open")])
def test_a_claim_follows_its_interval(shift: float, verdict: str) -> None:
    evaluation = build(MaskingStudyConfig, {}, "test").evaluation.evaluation("absorption")
    draw = torch.Generator().manual_seed(0)
    base = torch.rand(26, generator=draw)

    def units(offset: float, seed: int) -> list[Units]:
        noise = torch.randn(26, generator=torch.Generator().manual_seed(seed)) * 0.05
        return [means(Cell("full_absorption"), [f"letter {i}" for i in range(26)], base + offset + noise)]

    found = {
        Dictionary(arm, 20, s): units(shift if arm == "masked" else 0.0, 7 * s + len(arm))
        for arm in ("none", "masked")
        for s in (0, 1)
    }
    rows = masking_rows(evaluation, found, ("none", "masked"), (20,), (0, 1))
    (said,) = signs(rows)
    assert said["verdict"] == verdict
    assert said["value"] == pytest.approx(shift, abs=0.05)


def test_what_was_refused_is_left_out_of_pairs() -> None:
    evaluation = build(MaskingStudyConfig, {}, "test").evaluation.evaluation("absorption")
    one = [means(Cell("full_absorption"), ["a", "b"], torch.tensor([0.1, 0.3]))]
    found = {Dictionary("none", 20, 0): one, Dictionary("masked", 20, 1): one}
    rows = masking_rows(evaluation, found, ("none", "masked"), (20,), (0, 1))
    assert {(r.arm, r.seed, r.against) for r in rows} == {
        ("none", None, ""),
        ("none", 0, ""),
        ("masked", None, ""),
        ("masked", 1, ""),
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"arms": ["masked"]}, "wanted 'none' and at least one to compare with it"),
        ({"arms": ["none", "masked", "masked"]}, "names one twice"),
        ({"recipe": {"k": 3}}, "the recipe names k; name it in ks"),
        ({"recipe": {"k": 20, "seed": 3}}, "the recipe names seed; name it in seeds"),
        ({"recipe": {"k": 20, "architecture": "crosscoder"}}, "reads several places"),
        ({"masking": {"variant": "consistency"}}, "needs masked and clean activations side by side"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(MaskingStudyConfig, values, "test")


def test_presets_are_whole_configurations() -> None:
    for name in MASKING_PRESETS:
        made = build(MaskingStudyConfig, with_masking_preset({}, name), name)
        assert build(MaskingStudyConfig, made.model_dump(mode="json"), name) == made
    assert build(MaskingStudyConfig, with_masking_preset({}, "full"), "full") == MaskingStudyConfig()
    own = with_masking_preset({"recipe": {"tokens": 500_000}, "evaluation": {"fidelity": {"batch": 2}}}, "full")
    made, plain = build(MaskingStudyConfig, own, "own"), MaskingStudyConfig()
    assert made.recipe == plain.recipe.model_copy(update={"tokens": 500_000}), "what is not said stays"
    assert made.evaluation.fidelity == plain.evaluation.fidelity.model_copy(update={"batch": 2})
    assert made.evaluation.suites == plain.evaluation.suites
    with pytest.raises(UnknownName, match="arm 'maskd'"):
        build(MaskingStudyConfig, {"arms": ["none", "maskd"]}, "test")
    with pytest.raises(UnknownName, match="preset"):
        with_masking_preset({}, "quik")
