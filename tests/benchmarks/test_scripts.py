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
LIMITS = {"gemm_float32", "gemm_bfloat16"}
ARMS = {
    "train_step": {"perimetry", "perimetry_dense", *LIMITS},
    "score": {"truncated pass", "surprise", "main", "explained", "concepts", "full pass", "all"},
    "harvest": {"truncated pass", "harvest"},
}
SCRIPTS = sorted(ARMS)
OTHERS = {"fidelity_agreement", "kills", "probing", "probing_agreement", "serve"}
"""Scripts whose rows are of another kind than ratios of speed alone; each has tests of its own."""


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
        assert row["n"] == (2 if row.get("section", "speed") in ("speed", "architectures") else 1)
        assert isinstance(row["seed"], int)
        assert row["metric"].endswith("_ratio") == bool(row["against"])


def test_no_script_is_forgotten() -> None:
    there = {p.stem for p in (ROOT / "benchmarks").glob("*.py") if not p.name.startswith("_")}
    assert there == {*SCRIPTS, *OTHERS}
    assert all((Path(__file__).parent / f"test_{name}.py").is_file() for name in OTHERS)


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
    if name == "train_step":
        check_sections(found)


def check_sections(found: dict[str, Any]) -> None:
    from perimetry.sae import ARCHITECTURES

    rows = found["rows"]
    assert found["skipped"] == []
    assert found["data"] == ["planted"]
    assert {r["section"] for r in rows} == {"speed", "architectures", "memory", "training"}
    assert {r["architecture"] for r in rows if r["section"] == "architectures"} == set(ARCHITECTURES)
    curve = [r for r in rows if r["metric"] == "fvu" and r["arm"] == "perimetry"]
    dense = [r for r in rows if r["metric"] == "fvu" and r["arm"] == "perimetry_dense"]
    assert [r["step"] for r in curve] == list(range(1, 9))
    assert [r["seconds"] for r in curve] == sorted(r["seconds"] for r in curve)
    assert curve[-1]["estimate"] < curve[0]["estimate"]
    assert curve[-1]["estimate"] == pytest.approx(dense[-1]["estimate"], rel=1e-2)


@pytest.mark.slow
def test_the_training_step_prints_the_two_speeds() -> None:
    found = json.loads(run("train_step", "--quick", "--json"))
    assert {row["section"] for row in found["rows"]} == {"speed"}
    rows = {row["arm"]: row for row in found["rows"] if row["metric"] == "tokens_per_s"}
    assert set(rows) == {"perimetry", *LIMITS}
    assert found["perimetry_tokens_per_s"] == rows["perimetry"]["estimate"]
    assert found["gemm_tokens_per_s"] == max(rows[name]["estimate"] for name in LIMITS)
    ratios = [row for row in found["rows"] if row["metric"] == "time_ratio"]
    assert [(row["arm"], row["against"] in LIMITS) for row in ratios] == [("perimetry", True)]


@pytest.mark.slow
def test_without_json_a_table_is_printed() -> None:
    printed = run("train_step", "--quick")
    assert "time_ratio" in printed
    with pytest.raises(json.JSONDecodeError):
        json.loads(printed)
