import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from perimetry.assets import ASSETS, AssetSpec
from perimetry.assets.spec import Inputs
from perimetry.cli.assets import app
from perimetry.errors import CorruptArtifact, MissingFile, UnknownName, UsageError


def write(inputs: Inputs, out: Path) -> None:
    (out / "a.txt").write_text("text")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ASSETS, "tiny", AssetSpec("tiny", "text", "a tiny text", "MIT", None, write, 1))


def call(*words: str) -> Any:
    return app(list(words), exit_on_error=False, print_error=False, result_action="return_value")


def spoken(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    call("list", "--json")
    rows = {row["name"]: row for row in spoken(capsys)}
    assert set(rows) == set(ASSETS)
    assert rows["tiny"]["pulled"] is False
    assert rows["stories15m-samples"]["needs"] == ["stories15m"]
    call("pull", "tiny")
    assert "tiny" in capsys.readouterr().out
    call("list")
    out = capsys.readouterr().out
    for name, spec in ASSETS.items():
        (line,) = [line for line in out.splitlines() if line.startswith(f"│ {name} ")]
        assert spec.summary in line
        assert spec.licence in line
        assert (" yes " in line) == (name == "tiny")


def test_pull_path_verify(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    folder = cache / "prepared" / "tiny" / "v1"
    call("path", "tiny")
    assert capsys.readouterr().out == f"{folder}\n"
    call("path", "tiny", "--json")
    assert spoken(capsys) == {"name": "tiny", "path": str(folder)}
    call("pull", "tiny", "--json")
    (row,) = spoken(capsys)
    call("verify", "tiny", "--json")
    (found,) = spoken(capsys)
    assert found == {
        "name": "tiny", "path": str(folder), "digest": row["digest"], "files": 1, "raw": "not kept", "problems": []
    }  # fmt: skip
    (folder / "a.txt").write_text("TEXT")
    with pytest.raises(CorruptArtifact, match="tiny is not as its manifest says; run `perimetry assets pull tiny`"):
        call("verify", "tiny")
    assert "a.txt does not hash as its manifest says" in capsys.readouterr().out
    call("pull", "tiny")
    call("verify", "tiny")


def test_wrong_use() -> None:
    with pytest.raises(UnknownName, match="unknown asset 'tinny'; the nearest name is 'tiny'"):
        call("pull", "tinny")
    with pytest.raises(MissingFile, match="run `perimetry assets pull tiny`"):
        call("verify", "tiny")
    for words in (("pull",), ("pull", "tiny", "--all"), ("verify",)):
        with pytest.raises(UsageError, match="give names of assets, or --all, and not both"):
            call(*words)


def test_listing_needs_no_torch() -> None:
    code = "import sys, perimetry.cli.assets as a, perimetry.assets; print([m for m in sys.modules if m in ('torch', 'transformers')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
