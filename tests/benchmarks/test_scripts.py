"""Each benchmark runs alone on a tiny size and prints JSON in the results format. Nothing here looks at the clock."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(p.stem for p in (ROOT / "benchmarks").glob("*.py") if not p.name.startswith("_"))
ARMS = {
    "train_step": {"perimetry", "gemm_float32", "gemm_bfloat16"},
    "score": {"truncated pass", "main", "explained", "full pass", "all"},
    "harvest": {"truncated pass", "harvest"},
}


def run(name: str, *flags: str) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--tiny", "--repeats", "2", *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PERIMETRY_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_rows(rows: list[dict[str, Any]]) -> None:
    assert rows
    for row in rows:
        assert 0 < row["low"] <= row["estimate"] <= row["high"] < math.inf
        assert row["n"] == 2
        assert isinstance(row["seed"], int)
        assert (row["metric"] == "time_ratio") == bool(row["against"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_prints_one_json_object(name: str, tmp_path: Path) -> None:
    file = tmp_path / "sub" / "out.json"
    printed = run(name, "--json", "--out", str(file))
    assert printed.count("\n") == 1
    found = json.loads(printed)
    assert json.loads(file.read_text()) == found
    assert {"command", "version", "hardware", "date", "rows"} <= set(found)
    assert f"benchmarks/{name}.py" in found["command"]
    assert found["hardware"]["cores"] >= 1
    check_rows(found["rows"])
    assert {row["arm"] for row in found["rows"]} == ARMS[name]


@pytest.mark.slow
def test_the_training_step_prints_the_two_speeds() -> None:
    found = json.loads(run("train_step", "--quick", "--json"))
    rows = {row["arm"]: row for row in found["rows"] if row["metric"] == "tokens_per_s"}
    assert found["perimetry_tokens_per_s"] == rows["perimetry"]["estimate"]
    assert found["gemm_tokens_per_s"] == max(rows["gemm_float32"]["estimate"], rows["gemm_bfloat16"]["estimate"])
    ratios = [row for row in found["rows"] if row["metric"] == "time_ratio"]
    assert [row["arm"] for row in ratios] == ["perimetry"]


@pytest.mark.slow
def test_without_json_a_table_is_printed() -> None:
    printed = run("train_step")
    assert "time_ratio" in printed
    with pytest.raises(json.JSONDecodeError):
        json.loads(printed)


def test_the_headline_size_is_the_one_that_is_named() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import train_step  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.pop(0)
    assert train_step.HEADLINE == (4096, 576, 16_384, 32)
    assert train_step.HEADLINE in train_step.SIZES


def test_ratios_are_taken_within_a_turn() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import _common  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.pop(0)
    calls: list[str] = []
    seconds = _common.take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3}
    slow_start = {"a": [10.0, 2.0, 4.0], "b": [5.0, 1.0, 2.0]}
    assert _common.ratio(slow_start, "a", "b") == (2.0, 2.0, 2.0, 3)
    assert _common.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, 2.0, 4.0, 5)
    assert _common.spread([7.0]) == (7.0, 7.0, 7.0, 1)
