"""The help: complete, equal to the page made from it, and quick because it imports nothing heavy."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from perimetry import __version__
from perimetry.cli import app, main

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "numpy", "pydantic", "scipy", "sklearn", "httpx", "gguf", "safetensors")


def make_cli() -> Any:
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs" / "make_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verbs(parent: App, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command, deepest ones too, as words."""
    for name in parent:
        if not name.startswith("-"):
            yield (*before, name)
            yield from verbs(parent[name], (*before, name))


VERBS = sorted(verbs(app))


def test_the_page_is_the_help() -> None:
    module = make_cli()
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "the help changed; run `make docs`"


def test_the_check_sees_a_stale_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_cli()
    monkeypatch.setattr(module, "PAGE", tmp_path / "cli.md")
    monkeypatch.setattr(sys, "argv", ["make_cli.py", "--check"])
    assert module.main() == 1
    monkeypatch.setattr(sys, "argv", ["make_cli.py"])
    assert module.main() == 0
    monkeypatch.setattr(sys, "argv", ["make_cli.py", "--check"])
    assert module.main() == 0
    module.PAGE.write_text(module.page() + "more\n", encoding="utf-8")
    assert module.main() == 1


def test_there_are_the_commands_that_there_should_be() -> None:
    wanted = {"demo", "doctor", "assets", "train", "convert", "calibrate", "score", "bench", "report"}
    assert wanted <= {words[0] for words in VERBS}
    assert ("bench", "shift") in VERBS
    assert {words[1] for words in VERBS if words[0] == "assets" and len(words) == 2} == {
        "list",
        "pull",
        "path",
        "verify",
    }


@pytest.mark.parametrize("words", [(), *VERBS], ids=lambda words: " ".join(words) or "perimetry")
def test_every_help_prints(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"Usage: {' '.join(('perimetry', *words))}")
    assert shown.err == ""


def test_every_flag_is_explained() -> None:
    page = make_cli().page()
    flags = re.findall(r"^\* `(.+?)`: ?(.*)$", page, re.MULTILINE)
    assert len(flags) > 60
    assert [name for name, text in flags if not re.sub(r"\*?\*\[.*\]\*?\*", "", text).strip()] == []


def test_every_leaf_takes_json() -> None:
    leaves = [words for words in VERBS if not any(other[: len(words)] == words and other != words for other in VERBS)]
    sections = re.split(r"^#+ perimetry ", make_cli().page(), flags=re.MULTILINE)
    by_name = {section.partition("\n")[0]: section for section in sections}
    assert [words for words in leaves if "`--json`" not in by_name[" ".join(words)]] == []


def test_the_help_keeps_its_placeholders(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "PERIMETRY_COMMAND_KEY" in shown
    assert "2 error" in shown


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import contextlib, io, json, sys\n"
        "from perimetry.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    codes = [main([*words, '--help']) for words in json.loads(sys.argv[1])]\n"
        "    codes.append(main(['--version']))\n"
        "print(json.dumps([codes, sorted(m for m in json.loads(sys.argv[2]) if m in sys.modules)]))\n"
    )
    arguments = [json.dumps([[], *VERBS]), json.dumps(HEAVY)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    codes, heavy = json.loads(done.stdout)
    assert heavy == []
    assert set(codes) == {0}
    assert done.stderr == ""


def test_the_console_script_and_the_module_say_the_same() -> None:
    runs = [[sys.executable, "-m", "perimetry"], [sys.executable, "-m", "perimetry.cli"]]
    found = [subprocess.run([*run, "--version"], capture_output=True, text=True, check=True).stdout for run in runs]
    assert found == [f"{__version__}\n"] * 2
