"""A room imports only from lower floors, function bodies and type-only imports included."""

import ast
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "perimetry"
FLOORS = [
    {"errors", "axes"},
    {"strict", "ui"},
    {"storage"},
    {"config"},
    {"artifact", "runtime", "assets"},
    {"measures"},
    {"sae"},
    {"perturb", "activations"},
    {"train", "shift"},
    {"suites"},
    {"robust", "evals", "editing"},
    {"report"},
    {"monitor", "scale", "pipeline"},
    {"labs"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
FREE = {"__version__"}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "perimetry":
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("perimetry.")}
    return found - FREE


def upward(path: Path) -> list[str]:
    mine = room_of(path)
    if mine == "__init__":
        return []
    return sorted(
        other
        for other in imported_rooms(path)
        if other != mine and (other not in FLOOR or FLOOR[other] >= FLOOR[mine]) and not allowed(mine, other)
    )


def allowed(mine: str, other: str) -> bool:
    """Inside the floor of the ground rooms, an asset is prepared as an artifact by the runtime."""
    return mine == "assets" and other in {"artifact", "runtime"}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down_only(path: Path) -> None:
    assert upward(path) == []


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(p) for p in SOURCE.rglob("*.py")} - {"__init__"}
    assert rooms <= FLOOR.keys()


def test_the_check_sees_an_upward_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    bad = tmp_path / "measures" / "bad.py"
    bad.parent.mkdir()
    bad.write_text("def f():\n    from perimetry.shift.meter import Meter\n    return Meter\n", encoding="utf-8")
    assert upward(bad) == ["shift"]
