"""`perimetry study` as a user calls it."""

import json
from pathlib import Path

import pytest
from tests.worlds import FLAGS, World, run_main, text_of, write_jsonl

SETTINGS = """
[study]
layers = [1]
architectures = ["topk"]
seeds = [3]
"""


@pytest.fixture
def words(world: World, tmp_path: Path) -> list[str]:
    text = write_jsonl(tmp_path / "text.jsonl", [{"id": f"t{i}", "text": text_of(f"t{i}", 160)} for i in range(700)])
    settings = tmp_path / "study.toml"
    settings.write_text(SETTINGS)
    given = {
        "--preset": "tiny",
        "--model": world.model,
        "--text": text,
        "--config": settings,
        "--out": tmp_path / "out",
    }
    return ["study", *(str(word) for pair in given.items() for word in pair), *FLAGS]


def test_from_the_command_to_the_report(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_main(*words)
    assert first.code == 0, first.err
    assert "confirming " in first.err
    assert f"{tmp_path / 'out' / 'results.json'} and {tmp_path / 'out' / 'report.html'}" in first.err
    assert "validation: 8 of " in first.out
    assert "test, looked at 1 time(s)" in first.out
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["command"].startswith("perimetry study --preset tiny --model ")
    assert [(s["layer"], s["architecture"], s["seed"]) for s in results["saes"]] == [(1, "topk", 3)]
    again = run_main(*words, "--json", "--quiet")
    assert again.code == 0, again.err
    assert again.err == ""
    assert again.json()["rows"] == results["rows"]
    forced = run_main(*words, "--json", "--force").json()
    assert forced["confirmed"]["looks"] == 2
    made = run_main("report", tmp_path / "out", "--out", tmp_path / "again.html")
    assert made.code == 0, made.err
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "out" / "report.html").read_bytes()
    monkeypatch.setenv("PERIMETRY_STUDY_RULE", "least")
    kind, message = run_main(*words, "--json").error()
    assert kind == "ConfigError"
    assert "holds a study with other settings (rule)" in message


def test_what_is_refused(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    kind, message = run_main("study", "--preset", "tinny", "--json").error()
    assert (kind, "'tiny'" in message) == ("UnknownName", True)
    monkeypatch.setenv("PERIMETRY_STUDY_LAYERS", "[0, 77]")
    kind, message = run_main(*words, "--json").error()
    assert "77" in message, "a variable goes before the file, and the model has no such block"
    monkeypatch.setenv("PERIMETRY_STUDY_LAYERS", "[0, 0]")
    kind, message = run_main(*words, "--json").error()
    assert (kind, "layers = [0, 0] names one twice" in message) == ("ConfigError", True)
