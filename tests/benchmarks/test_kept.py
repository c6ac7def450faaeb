"""A benchmark that was killed goes on."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

MODULE = "_kept"
ABOUT = {"repeats": 3}


def test_goes_on_after_a_kill(module: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    skipped: list[dict[str, Any]] = []

    def first() -> list[dict[str, Any]]:
        skipped.append({"arm": "slow"})
        return [{"estimate": 2.0}]

    assert module.Kept(out, ABOUT).part("one", first, lambda: skipped) == [{"estimate": 2.0}]
    part = tmp_path / "speed.part.jsonl"
    with part.open("ab") as file:
        file.write(b'{"part": "two", "ro')
    again = module.Kept(out, ABOUT)
    seen: list[dict[str, Any]] = []
    assert again.part("one", lambda: pytest.fail("measured twice"), lambda: seen) == [{"estimate": 2.0}]
    assert seen == [{"arm": "slow"}]
    assert again.part("two", lambda: [{"estimate": 3.0}], lambda: seen) == [{"estimate": 3.0}]
    lines = [json.loads(line) for line in part.read_text().splitlines()]
    assert [line.get("part") for line in lines] == [None, "one", "two"]
    again.close()
    assert not part.exists()


def test_another_run_is_refused(module: ModuleType, tmp_path: Path) -> None:
    module.Kept(tmp_path / "speed.json", ABOUT)
    with pytest.raises(SystemExit, match="another run"):
        module.Kept(tmp_path / "speed.json", {"repeats": 5})
