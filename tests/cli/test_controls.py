"""`perimetry bench controls`: the table, the JSON, the report that is written again from it, and what is refused."""

import json
from pathlib import Path

import pytest
from tests.worlds import Outcome, World, run_main

SETTINGS = """
[controls]
words = 15
clean_prompts = 40
shuffles = 100
simulated = 1000
resamples = 100
acts = 400
profile_tokens = 1000
foresight_tokens = 500
reference_tokens = 500
calibration_prompts = 20
scores = ["l0"]
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    (folder / "controls.toml").write_text(SETTINGS)
    return folder


def run(world: World, out: Path, *more: str | Path) -> Outcome:
    asked = ("bench", "controls", world.meter, "--text", world.corpus, "--out", out / "found", "--n", "9")
    return run_main(*asked, "--config", out / "controls.toml", *more)


def test_the_table_and_the_json_say_the_same(world: World, out: Path) -> None:
    table = run(world, out)
    assert table.code == 0, table.err
    assert "measuring dictionaries that learned nothing" in table.err
    assert str(out / "found" / "report.html") in table.err
    done = run(world, out, "--json", "--quiet")
    assert done.code == 0, done.err
    assert done.err == ""
    found = done.json()
    judged = [row for row in found["controls"] if row["holds"] is not None]
    kept = sum(row["holds"] for row in judged)
    assert f"{kept} of {len(judged)} controls hold, {len(judged) - kept} fail." in table.out
    assert table.out.count("holds") == kept
    assert table.out.count("fails") == len(judged) - kept
    assert found["command"].startswith(f"perimetry bench controls {world.meter} --text {world.corpus} --n 9 --config")
    assert json.loads((out / "found" / "results.json").read_text())["controls"] == found["controls"]
    assert {row["n"] for row in judged if row["control"] == "untrained_sae"} == {9}


def test_the_report_is_written_again_from_the_results(world: World, out: Path) -> None:
    assert run(world, out, "--quiet").code == 0
    again = run_main("report", out / "found", "--out", out / "again.html")
    assert again.code == 0, again.err
    assert (out / "again.html").read_bytes() == (out / "found" / "report.html").read_bytes()
    assert "What a sceptic would try" in (out / "again.html").read_text()


def test_clean_text_to_fit_on_can_be_given(world: World, out: Path) -> None:
    kind, message = run(world, out, "--fit-text", world.corpus, "--json").error()
    assert kind == "UsageError"
    assert "is held out for the test" in message


def test_names_are_checked(world: World, out: Path) -> None:
    kind, message = run(world, out, "--preset", "quik", "--json").error()
    assert (kind, "the nearest name is 'quick'" in message) == ("UnknownName", True)
    (out / "bad.toml").write_text("[controls]\nshuffle = 3\n")
    asked = ("bench", "controls", world.meter, "--config", out / "bad.toml", "--out", out / "x", "--json")
    kind, message = run_main(*asked).error()
    assert (kind, "the nearest key is 'shuffles'" in message) == ("ConfigError", True)
