"""Both arms of the comparison with sae-probes' fits see the same cells, and agree where saga has the steps that it needs."""

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from perimetry.errors import UsageError
from perimetry.evals.sae.probe_features import Task, judge
from perimetry.measures.logistic import Labelled
from perimetry.runtime import generator
from perimetry.sae.base import Start
from perimetry.sae.formats import save_sae
from perimetry.sae.formats.info import SAEInfo
from perimetry.sae.topk import TopKSAE

MODULE = "probing"


def task(seed: int) -> Task:
    """Three latents of unit scale that know something: saga is at the optimum within its steps."""
    draw = generator(seed)
    rows = torch.randn(400, 3, generator=draw)
    labels = rows @ torch.tensor([1.0, -0.5, 0.2]) + torch.randn(400, generator=draw) > 0
    return Task(Labelled(rows[:200], labels[:200]), (Labelled(rows[200:], labels[200:]),))


def test_the_arms_agree_where_saga_converges(module: ModuleType) -> None:
    tasks = [task(0), task(1)]
    found = module.compare(tasks, 2, 1, ("saga", module.saga))
    assert set(found.areas) == {"saga", "perimetry", "scikit-learn"}
    for arm in ("saga", "scikit-learn"):
        assert found.areas["perimetry"] == pytest.approx(found.areas[arm], abs=5e-3)
    assert found.areas["perimetry"] == [areas[0] for areas in judge(tasks, "l1", 2)]
    assert all(seconds[0] > 0 for seconds in found.seconds.values())


def test_differences_are_ours_less_theirs(module: ModuleType) -> None:
    both = module.Compared({"saga": [6.0], "perimetry": [2.0]}, {"saga": [0.5, 0.75], "perimetry": [0.75, 0.5]})
    found = {(row["metric"], row["arm"]): row for row in module.rows_of(both, {"k": 1})}
    assert found["time_ratio", "saga"]["estimate"] == 3
    gap = found["auroc_difference", "perimetry"]
    assert (gap["against"], gap["estimate"], gap["low"], gap["high"], gap["n"]) == ("saga", 0, -0.25, 0.25, 2)


def test_cells_reach_another_process_as_they_are(scripts: Path, tmp_path: Path) -> None:
    tasks = [task(0), task(1)]
    import_module("_probes").write_cells(tasks, tmp_path / "cells.safetensors")
    found = load_file(tmp_path / "cells.safetensors")
    assert torch.equal(found["train_1"], tasks[1].train.rows)
    assert torch.equal(found["test_labels_0"], tasks[0].tests[0].labels)
    assert list(scripts.glob("peers/probes_sae_probes.py"))


def test_the_script_prints_its_rows(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["probing.py", "--tiny", "--json", "--seeds", "1"])
    module.main()
    rows = json.loads(capsys.readouterr().out)["rows"]
    kinds = {(row["metric"], row["arm"], row["k"]) for row in rows}
    assert {("time_ratio", "saga", 0), ("seconds", "perimetry", 4), ("auroc_difference", "perimetry", 1)} <= kinds
    exact = [row for row in rows if row["against"] == "scikit-learn" and row["k"] == 0]
    assert max(abs(exact[0]["low"]), abs(exact[0]["high"])) < 0.005
    assert {row["cells"] for row in rows if row["k"] == 0} == {4}


def test_a_dictionary_must_say_its_model(module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sae = TopKSAE.fresh(Start(torch.zeros(8), 16, 2, 0))
    save_sae(sae, tmp_path / "sae", SAEInfo(architecture="topk"))
    monkeypatch.setattr("sys.argv", ["probing.py", "--sae", str(tmp_path / "sae")])
    with pytest.raises(UsageError, match="does not say its model and layer; give one of `perimetry train`"):
        module.main()
