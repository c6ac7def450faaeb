"""Trainings that are killed end as if they had not been; and the count of kills tells a training that does not."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from perimetry.train.checkpoint import Checkpoint
from perimetry.train.trainer import Trainer

MODULE = "kills"
PATIENCE = 25


@pytest.fixture(scope="module")
def ground(scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from _victims import Ground  # pyright: ignore[reportMissingImports]

    return Ground.make(tmp_path_factory.mktemp("ground") / "store", tiny=True)


@pytest.mark.slow
def test_every_killed_training_ends_with_the_same_bytes(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    flags = ["--tiny", "--json", "--out", str(out), "--kills", "3", "--only", "several", "archetypal", "live"]
    monkeypatch.setattr(sys, "argv", ["kills.py", *flags])
    assert module.main() == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert json.loads(out.read_text()) == found
    assert {"command", "version", "hardware", "date", "rows"} <= set(found)
    assert (found["kills"], found["unequal"], found["differences"]) == (3, 0, [])
    assert found["resumed"] == 3
    assert found["trainings_killed"] == len({hit["training"] for hit in found["hits"]})
    assert sum(found["phases"].values()) == 3 == len(found["hits"])
    whole = next(row for row in found["rows"] if row["arm"] == "all")
    assert (whole["estimate"], whole["n"], whole["high"]) == (1.0, 3, 1.0)
    assert "   3 kills" in printed.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("aim", "phase", "name"),
    [("save", "in a save", "batchtopk"), ("save", "in a save", "several"), ("end", "in the final write", "jumprelu")],
)
def test_killed_during_a_write(
    aim: str, phase: str, name: str, module: ModuleType, ground: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AIMS", {aim: 1.0})
    whole = module.run_whole(ground, module.VICTIMS[name], tmp_path / "whole")
    killer = module.Killer(ground, tmp_path, 0)
    while not any(hit.phase == phase for hit in killer.hits) and killer.trainings < PATIENCE:
        killer.train(name, whole, 2)
    assert phase in {hit.phase for hit in killer.hits}
    assert killer.unequal == {}


@pytest.mark.slow
def test_a_training_that_forgets_something_is_found_out(
    module: ModuleType, ground: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = module.run_whole(ground, module.VICTIMS["topk"], tmp_path / "whole")
    monkeypatch.setattr(module, "AIMS", {"save": 1.0})
    load = Trainer.load

    def forgetful(self: Trainer, checkpoint: Checkpoint) -> None:
        load(self, checkpoint)
        self.optimizer.state.clear()

    monkeypatch.setattr(Trainer, "load", forgetful)
    killer = module.Killer(ground, tmp_path, 0)
    while not any(hit.checkpoint for hit in killer.hits) and killer.trainings < PATIENCE:
        killer.train("topk", whole, 1)
    assert list(killer.unequal) == [next(hit.training for hit in killer.hits if hit.checkpoint)]
    assert "topk: other bytes in sae-0/sae/" in next(iter(killer.unequal.values()))
    rows = {row["arm"]: row["estimate"] for row in module.rows_of(killer.hits, killer.unequal, 0)}
    assert rows["all"] < 1


@pytest.mark.slow
def test_a_training_that_fails_when_it_goes_on_is_found_out(
    module: ModuleType, ground: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = module.run_whole(ground, module.VICTIMS["topk"], tmp_path / "whole")

    def fails(self: Trainer, checkpoint: Checkpoint) -> None:
        raise ValueError("it cannot go on")

    monkeypatch.setattr(Trainer, "load", fails)
    killer = module.Killer(ground, tmp_path, 0)
    while not killer.unequal and killer.trainings < PATIENCE:
        killer.train("topk", whole, 1)
    assert "it cannot go on" in next(iter(killer.unequal.values()))


def state(module: ModuleType, folder: Path, *paths: str) -> Any:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return module.State.of(folder)


SAVED = "checkpoints/step-000000010/manifest.json"


@pytest.mark.parametrize(
    ("before", "after", "phase"),
    [
        ((), (), "before the first checkpoint"),
        ((), ("checkpoints/.tmp-step-000000010.aa/state.safetensors",), "in a save"),
        ((), ("checkpoints/step-000000005/state.safetensors", SAVED), "in a save"),
        (("checkpoints/.tmp-step-000000010.aa/x",), (), "before the first checkpoint"),
        ((), (SAVED,), "between checkpoints"),
        ((SAVED,), (), "between checkpoints"),
        ((), ("checkpoints/step-000000090/manifest.json",), "after the last checkpoint"),
        ((SAVED,), (".tmp-sae.bb/cfg.json",), "in the final write"),
        ((SAVED,), (".tmp-log.jsonl.bb",), "between checkpoints"),
        ((SAVED,), ("sae/manifest.json", "checkpoints/step-000000005/x"), "after the final write"),
    ],
)
def test_what_was_hit_is_read_off_the_folder(
    before: tuple[str, ...], after: tuple[str, ...], phase: str, module: ModuleType, tmp_path: Path
) -> None:
    first = state(module, tmp_path, *before)
    assert module.phase_of([first], [state(module, tmp_path, *after)], 90) == phase
    assert phase in module.PHASES


def test_a_difference_names_what_differs(module: ModuleType) -> None:
    whole = module.Snapshot({"a": "1", "b": "2"}, ((5, 10),))
    assert module.difference(whole, whole) == ""
    assert module.difference(whole._replace(files={"a": "1", "b": "3", "c": "4"}), whole) == "other bytes in b, c"
    assert module.difference(whole._replace(steps=((5,),)), whole) == "other steps in the log"
