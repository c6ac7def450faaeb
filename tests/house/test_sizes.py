"""Files of at most 300 lines and functions of at most 60, or a reason in the list."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FILE, MAX_FUNCTION = 300, 60
LONGER_FILES: dict[str, str] = {}
LONGER_FUNCTIONS: dict[str, str] = {
    "cli/train.py:train": "the flags of the command with their help",
}


def sources() -> list[Path]:
    return sorted((ROOT / "src" / "perimetry").rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT / "src" / "perimetry"))


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= MAX_FILE or name_of(path) in LONGER_FILES, f"{name_of(path)} has {lines} lines; split it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            place = f"{name_of(path)}:{node.name}"
            assert length <= MAX_FUNCTION or place in LONGER_FUNCTIONS, f"{place} has {length} lines; split it"


def test_no_exception_outlives_its_reason() -> None:
    by_name = {name_of(p): p.read_text(encoding="utf-8") for p in sources()}
    for name in LONGER_FILES:
        assert name in by_name, f"{name} is gone; take it off the list"
        assert by_name[name].count("\n") > MAX_FILE, f"{name} is short now; take it off the list"
    for place in LONGER_FUNCTIONS:
        name, _, function = place.partition(":")
        nodes = [n for n in ast.walk(ast.parse(by_name[name])) if isinstance(n, ast.FunctionDef) and n.name == function]
        longest = max((n.end_lineno or 0) - n.lineno + 1 for n in nodes)
        assert longest > MAX_FUNCTION, f"{place} is short now; take it off the list"
