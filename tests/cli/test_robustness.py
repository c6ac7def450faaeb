"""`perimetry study robustness` as a user calls it."""

import json
from pathlib import Path

import pytest
from tests.worlds import Outcome, World, run_main, text_of, write_jsonl

from perimetry.pipeline.robustness_config import ARMS, CLAIMS

FEW = ("clean", "sae", "random_sae", "residual", "select_shift", "select_random")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = ({"id": f"d{i}", "text": text_of(f"robust:{i}", 30).capitalize()} for i in range(80))
    return write_jsonl(tmp_path_factory.mktemp("texts") / "texts.jsonl", rows)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "own.toml"
    path.write_text(f"[robustness]\narms = {json.dumps(FEW)}\npool_share = 0.6\n", encoding="utf-8")
    return path


def call(world: World, texts: Path, config: Path, out: Path, *more: str, preset: str = "tiny") -> Outcome:
    given = [
        "--meter",
        world.meter,
        "--judge",
        world.meter,
        "--text",
        texts,
        "--preset",
        preset,
        "--config",
        config,
        "--out",
        out,
    ]
    return run_main("study", "robustness", *given, *more)


def test_from_the_command_to_the_report(world: World, texts: Path, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = call(world, texts, config, out)
    assert first.code == 0, first.err
    assert "12/12  select_random, seed 1" in first.err
    assert "gap closed of sae at typos 40 % above that of random sae" in first.out
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert {row["arm"] for row in results["rows"]} == {"base", *FEW}
    assert {row["seed"] for row in results["rows"] if row["arm"] == "sae"} == {0, 1, None}
    assert all(row["low"] <= row["estimate"] <= row["high"] for row in results["rows"])
    metrics = {row["metric"] for row in results["rows"]}
    assert metrics == set(results["metrics"]) - {"harness"}, "no task of the harness was asked for"
    judged = {row["case"] for row in results["rows"] if row["metric"] == "shift"}
    assert {"own:energy", "judge 1:energy", "own:nll"} <= judged
    base = {(r["metric"], r["case"]): r["estimate"] for r in results["rows"] if r["arm"] == "base"}
    assert base["recovered", "typos 40 %"] == 0
    assert base["shift_clean", "own:energy"] == pytest.approx(0, abs=1e-6)
    same = [r for r in results["rows"] if (r["arm"], r["metric"], r["case"]) == ("sae", "shift", "own:energy")]
    other = [r for r in results["rows"] if (r["arm"], r["metric"], r["case"]) == ("sae", "shift", "judge 1:energy")]
    assert [r["estimate"] for r in same] == [r["estimate"] for r in other], "the judge is the same meter here"
    (out / "parts" / "residual-1.json").unlink()
    (out / "runs" / "residual-1" / "log.jsonl").unlink()
    again = call(world, texts, config, out, "--json", "--quiet")
    assert again.err == ""
    assert again.json()["rows"] == results["rows"]
    made = run_main("report", out, "--out", tmp_path / "again.html")
    assert made.code == 0, made.err
    assert (tmp_path / "again.html").read_bytes() == (out / "report.html").read_bytes()


def test_what_is_refused(world: World, texts: Path, config: Path, tmp_path: Path) -> None:
    kind, message = call(world, texts, config, tmp_path / "a", "--json", preset="tinny").error()
    assert (kind, "'tinny'" in message) == ("UnknownName", True)
    own = tmp_path / "own.toml"
    own.write_text('[robustness]\narms = ["seas"]\n', encoding="utf-8")
    kind, message = call(world, texts, own, tmp_path / "b", "--json").error()
    assert (kind, "nearest name is 'sae'" in message) == ("ConfigError", True)


def test_claims_speak_of_arms_that_are_there() -> None:
    for claim in CLAIMS:
        assert claim.arm in ARMS
        assert claim.against in ("", *ARMS)
