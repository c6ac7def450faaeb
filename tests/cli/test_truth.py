"""`perimetry study truth` as a user calls it."""

import json
from pathlib import Path

from tests.worlds import run_main


def test_from_the_command_to_the_report(tmp_path: Path) -> None:
    words = ["study", "truth", "--preset", "tiny", "--out", str(tmp_path / "out")]
    first = run_main(*words)
    assert first.code == 0, first.err
    assert "2/2  causal: 4 arms, 2 seeds" in first.err
    assert "absorption of broken below that of none" in first.out
    assert "matching_pursuit" in first.out
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["command"].startswith("perimetry study truth --preset tiny --out ")
    again = run_main(*words, "--json", "--quiet")
    assert again.err == ""
    assert again.json()["rows"] == results["rows"]
    made = run_main("report", tmp_path / "out", "--out", tmp_path / "again.html")
    assert made.code == 0, made.err
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "out" / "report.html").read_bytes()


def test_what_is_refused(tmp_path: Path) -> None:
    kind, message = run_main("study", "truth", "--preset", "tinny", "--json").error()
    assert (kind, "'tinny'" in message) == ("UnknownName", True)
    config = tmp_path / "own.toml"
    config.write_text('[truth]\nparts = ["order", "orders"]\n')
    kind, message = run_main("study", "truth", "--config", config, "--out", tmp_path / "x", "--json").error()
    assert (kind, "parts" in message) == ("ConfigError", True)
