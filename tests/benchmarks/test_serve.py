"""The benchmark of the service runs on a tiny meter, compares like with like, and refuses a service that scores otherwise."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.benchmarks.test_scripts import run

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sys.modules.pop("serve", None)
    return importlib.import_module("serve")


@pytest.mark.slow
def test_it_prints_ratios_latencies_and_memory(tmp_path: Path) -> None:
    found = json.loads(run("serve", "--json", "--out", str(tmp_path / "out.json")))
    rows = {(row["metric"], row["arm"]): row for row in found["rows"]}
    assert set(rows) == {
        *(("throughput_ratio", arm) for arm in ("batches", "single")),
        *(("prompts_per_s", arm) for arm in ("direct", "batches", "single")),
        *(("latency_ms", arm) for arm in ("direct", "single", "added")),
        ("resident_mb", "service"),
    }
    for (metric, arm), row in rows.items():
        assert row["low"] <= row["estimate"] <= row["high"]
        assert row["estimate"] > 0 or arm == "added"
        assert bool(row["against"]) == (metric == "throughput_ratio")
    assert rows["latency_ms", "direct"]["n"] == 16
    assert 0 <= rows["resident_mb", "service"]["difference"] < 1e-3


def test_requests_hold_all_prompts_once(script: ModuleType) -> None:
    texts = [f"text {i}" for i in range(70)]
    many, single = script.bodies_of(texts)
    assert [len(body["inputs"]) for body in many] == [32, 32, 6]
    assert [text for body in many for text in body["inputs"]] == texts
    assert [body["input"] for body in single] == texts


def test_a_service_that_scores_otherwise_is_refused(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reading:
        def __init__(self, score: float) -> None:
            self.score = score

    class Meter:
        class lm:  # noqa: N801
            class dtype:  # noqa: N801
                itemsize = 4

        @staticmethod
        def score(texts: list[str], **_: object) -> list[Reading]:
            return [Reading(float(i)) for i in range(len(texts))]

    def answers(shift: float) -> list[dict[str, list[dict[str, float]]]]:
        return [{"results": [{"score": float(i) + shift * (i == 3)} for i in range(8)]}]

    monkeypatch.setattr(script, "asked", lambda *_: answers(0.0))
    assert script.differences(Meter, None, ["x"] * 8) == 0
    monkeypatch.setattr(script, "asked", lambda *_: answers(0.1))
    with pytest.raises(RuntimeError, match="scores otherwise"):
        script.differences(Meter, None, ["x"] * 8)
