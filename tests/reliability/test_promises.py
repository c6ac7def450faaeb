"""RELIABILITY.md: every row names tests that exist, or says that there is none yet."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "RELIABILITY.md"
OPEN = "not tested yet"
ID = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
SECTIONS = {
    *("Hostile files", "Crashes, disks, writers", "Numbers", "Statistics", "The service under attack"),
    *("Dependencies down", "The page and privacy", "Supply chain"),
}


def rows(text: str) -> list[list[str]]:
    """The cells of every row of every table, headings left out."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("| ") and not line.endswith(("| tests |", "|---|")):
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


@cache
def functions(file: Path) -> set[str]:
    """Names of the tests of a file."""
    if not file.is_file():
        return set()
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}


def missing(text: str) -> list[str]:
    """What a page names that is not there, and its rows that name nothing."""
    wrong: list[str] = []
    for cells in rows(text):
        last, named = cells[-1].rstrip("| "), ID.findall(cells[-1])
        wrong += [f"{file}::{name}" for file, name in named if name not in functions(ROOT / file)]
        if not named and last != OPEN:
            wrong.append(f"the row {cells[0]!r} has no test")
        if named and len(named) != last.count("::"):
            wrong.append(f"the row {cells[0]!r} names a test in another form")
    return wrong


def test_every_row_has_tests_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert missing(text) == []
    assert len(rows(text)) >= 60
    assert set(re.findall(r"^## (.*)$", text, re.MULTILINE)) == SECTIONS


def test_what_is_open_is_little_and_said() -> None:
    text = PAGE.read_text(encoding="utf-8")
    left = [cells[0] for cells in rows(text) if cells[-1].rstrip("| ") == OPEN]
    assert len(left) <= 7, f"rows without a test became more: {left}"


@pytest.mark.parametrize(
    "row",
    [
        "| a | b | `tests/reliability/test_promises.py::test_nobody` |",
        "| a | b | `tests/nowhere.py::test_x` |",
        "| a | b | it is so |",
        "| a | b | tests/test_errors.py::test_the_tree_is_as_drawn |",
    ],
)
def test_the_check_sees_a_row_that_backs_nothing(row: str) -> None:
    assert missing(row)
