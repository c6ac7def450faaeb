"""Workers answer by turns, say why they fail, and one that fails does not stop the others."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

MODULE = "_crew"


@pytest.fixture
def jobs(scripts: Path, tmp_path: Path) -> dict[str, tuple[str, Any]]:
    import _arms  # pyright: ignore[reportMissingImports]

    rows = tmp_path / "rows.npy"
    np.save(rows, np.random.default_rng(0).standard_normal((256, 16)).astype(np.float32))
    broken = _arms.ARMS["perimetry"].job(_arms.TINY, rows, rows, architecture="nonsense")
    good = {name: ("", _arms.ARMS[name].job(_arms.TINY, rows, rows)) for name in ("perimetry", "gemm_float32")}
    return {"broken": ("", broken), **good}


@pytest.mark.slow
def test_turns(module: ModuleType, jobs: dict[str, tuple[str, Any]]) -> None:
    with module.Crew(None, 1) as crew:
        turns = crew.take_turns(jobs, 3)
        assert {arm: len(taken) for arm, taken in turns.seconds.items()} == {
            "broken": 0,
            "perimetry": 3,
            "gemm_float32": 3,
        }
        assert turns.active == {"perimetry": pytest.approx(4.0, abs=0.1), "gemm_float32": None}
        assert set(turns.failed) == {"broken"}
        assert "nonsense" in turns.failed["broken"]
        worker = crew.of("")
        assert worker.about["threads"] == 1
        with pytest.raises(module.WorkerFailed, match="KeyError"):
            worker.ask("step", arm="perimetry")
        measured = worker.ask("memory", job=jobs["perimetry"][1].to_json())
        assert measured["parameter_bytes"] == 4 * (2 * 64 * 16 + 64 + 16)
        assert measured["peak_bytes"] >= 0
        trained = train(worker, jobs["perimetry"][1], 12)
        assert trained[-1]["fvu"] < trained[0]["fvu"]


def train(worker: Any, job: Any, steps: int) -> list[dict[str, Any]]:
    worker.ask("open", arm="one", job={**job.to_json(), "steps": steps, "lr": 1e-2})
    return [worker.ask("train", arm="one", steps=steps // 4) for _ in range(4)]


@pytest.mark.slow
def test_a_worker_that_goes_away_is_named_and_replaced(module: ModuleType, jobs: dict[str, tuple[str, Any]]) -> None:
    with module.Crew(None, 1) as crew:
        crew.of("").process.kill()
        turns = crew.take_turns({"gemm_float32": jobs["gemm_float32"]}, 1)
        assert "lack of memory" in turns.failed["gemm_float32"] or "gone" in turns.failed["gemm_float32"]
        again = crew.take_turns({"gemm_float32": jobs["gemm_float32"]}, 1)
        assert again.failed == {}


def test_the_interpreters(module: ModuleType, tmp_path: Path) -> None:
    import sys

    crew = module.Crew(tmp_path, 1)
    assert crew.python("") == Path(sys.executable)
    assert crew.python("saelens").is_relative_to(tmp_path / "saelens")
