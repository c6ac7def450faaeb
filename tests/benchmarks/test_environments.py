"""The environments of the other libraries: pinned, made once, left alone when they are ready."""

import re
from pathlib import Path
from types import ModuleType

import pytest

MODULE = "peers.environments"


def test_everything_asked_for_is_pinned_and_torch_is_the_same_for_all(module: ModuleType) -> None:
    for environment in module.ENVIRONMENTS.values():
        lines = environment.pins.read_text(encoding="utf-8").splitlines()
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9A-Za-z.]+", line) for line in lines)
        pins = dict(line.lower().split("==") for line in lines)
        assert set(environment.requires) <= set(pins)
        assert set(environment.without) <= set(pins)
        assert pins["torch"] == "2.13.0"


def test_one_that_is_ready_is_left_alone(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> None:
        calls.append(command)

    def create(place: Path, **_: object) -> None:
        place.mkdir(parents=True)

    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(module.venv, "create", create)
    environment = module.ENVIRONMENTS["dictionary_learning"]
    assert not module.ready(tmp_path, environment)
    assert module.make(tmp_path, environment)
    assert [next(w for w in command if w in ("install", "uninstall")) for command in calls] == ["install", "uninstall"]
    assert str(environment.pins) in calls[0]
    assert "torchvision" in calls[1]
    assert module.ready(tmp_path, environment)
    assert not module.make(tmp_path, environment)
    assert len(calls) == 2
    assert not module.ready(tmp_path, environment._replace(requires=("torch", "another")))
