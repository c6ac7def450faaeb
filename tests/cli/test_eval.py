"""`perimetry eval` as a user calls it."""

import json
from pathlib import Path

import pytest
from tests.worlds import FLAGS, World, run_main


@pytest.fixture
def words(world: World, tmp_path: Path) -> list[str]:
    settings = tmp_path / "eval.toml"
    settings.write_text(f'[eval]\ncontrols = ["untrained_dictionary"]\n[eval.fidelity]\ntext = "{world.corpus}"\n')
    given = {"--preset": "tiny", "--config": settings, "--out": tmp_path / "out"}
    return ["eval", str(world.sae / "sae"), *(str(word) for pair in given.items() for word in pair), *FLAGS]


def test_from_the_command_to_the_report(words: list[str], tmp_path: Path) -> None:
    first = run_main(*words, "--suite", "fidelity", "--suite", "probing")
    assert first.code == 0, first.err
    assert "explained_variance" in first.out
    assert "untrained dictionary" in first.out
    assert f"{tmp_path / 'out' / 'results.json'} and {tmp_path / 'out' / 'report.html'}" in first.err
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["command"].startswith("perimetry eval ")
    assert " --suite fidelity --suite probing " in results["command"]
    again = run_main(*words, "--suite", "fidelity", "--suite", "probing", "--json", "--quiet")
    assert again.code == 0, again.err
    assert again.err == ""
    assert again.json()["rows"] == results["rows"]
    made = run_main("report", tmp_path / "out", "--out", tmp_path / "again.html")
    assert made.code == 0, made.err
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "out" / "report.html").read_bytes()


def test_seeds_and_controls_are_flags(words: list[str]) -> None:
    found = run_main(*words, "--suite", "probing", "--seeds", "3", "--no-controls", "--json", "--quiet")
    assert found.code == 0, found.err
    results = found.json()
    assert results["configuration"]["seeds"] == 3
    assert results["configuration"]["controls"] == []
    assert " --no-controls " in results["command"]
    assert {row["control"] for row in results["rows"]} == {""}


def test_what_is_refused(words: list[str], tmp_path: Path) -> None:
    kind, message = run_main(*words, "--suite", "probings", "--json").error()
    assert (kind, "'probing'" in message) == ("UnknownName", True)
    kind, _ = run_main("eval", tmp_path / "nothing", "--out", tmp_path / "x", "--json").error()
    assert kind == "MissingFile"
    kind, message = run_main("eval", words[1], "--preset", "tinny", "--json").error()
    assert (kind, "'tiny'" in message) == ("UnknownName", True)
