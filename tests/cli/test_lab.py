"""`perimetry lab` as a user calls it."""

import json
from pathlib import Path

from tests.worlds import run_main

from perimetry.labs import LABS

SMALL = """
[lab]
theory = ["1_2"]
networks = ["net_one_layer"]
count_arms = []
watch = 0
points = 200
"""


def test_list_and_show() -> None:
    listed = run_main("lab", "list", "--json").json()["labs"]
    assert [one["name"] for one in listed] == list(LABS)
    shown = run_main("lab", "show", "swing-by")
    assert (shown.code, "arXiv 2410.08309" in shown.out, "control: " in shown.out) == (0, True, True)
    facts = run_main("lab", "show", "swing-by", "--json").json()
    assert len(facts["expected"]) == len(LABS["swing-by"].expected)


def test_run_judges_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    config, out = tmp_path / "own.toml", tmp_path / "out"
    config.write_text(SMALL, encoding="utf-8")
    call = (
        "lab",
        "run",
        "swing-by",
        "--preset",
        "tiny",
        "--seeds",
        "1",
        "--workers",
        "1",
        "--config",
        config,
        "--out",
        out,
    )
    first = run_main(*call)
    assert first.code == 0, first.err
    assert "3/3  net_one_layer, seed 0" in first.err
    assert "holds" in first.out
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert {row["arm"] for row in results["rows"]} == {"two_layers_1_2", "one_layer_1_2", "net_one_layer"}
    assert results["command"].startswith("perimetry lab run swing-by --preset tiny --seeds 1")
    (out / "parts" / "net_one_layer-0.json").unlink()
    again = run_main(*call, "--json")
    assert "1/3" not in again.err
    assert "3/3" in again.err
    assert again.json()["rows"] == results["rows"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "What was to come out, and what came out" in page
    made = run_main("report", out, "--out", tmp_path / "again.html")
    assert made.code == 0, made.err
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_an_expectation_that_fails_is_exit_code_1(tmp_path: Path) -> None:
    config = tmp_path / "own.toml"
    config.write_text(SMALL + 'judged = "all"\nshorten = 0.02\n', encoding="utf-8")
    done = run_main(
        "lab",
        "run",
        "swing-by",
        "--preset",
        "tiny",
        "--seeds",
        "1",
        "--workers",
        "1",
        "--config",
        config,
        "--out",
        tmp_path / "o",
    )
    assert done.code == 1, done.err
    assert "FAILS" in done.out


def test_what_is_refused(tmp_path: Path) -> None:
    kind, message = run_main("lab", "run", "swingby", "--json").error()
    assert (kind, "swing-by" in message) == ("UnknownName", True)
    kind, message = run_main("lab", "run", "swing-by", "--preset", "quik", "--json").error()
    assert (kind, "quick" in message) == ("UnknownName", True)
    kind, message = run_main("lab", "run", "swing-by", "--seeds", "0", "--out", tmp_path / "a", "--json").error()
    assert (kind, "give 1 or more" in message) == ("UsageError", True)
    config = tmp_path / "bad.toml"
    config.write_text("[lab]\nwatchh = 3\n", encoding="utf-8")
    kind, message = run_main("lab", "run", "swing-by", "--config", config, "--out", tmp_path / "b", "--json").error()
    assert (kind, "the nearest key is 'watch'" in message) == ("ConfigError", True)
