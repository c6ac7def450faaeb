"""Public names: sorted, existing, few at the top, and every name of a table is in the docs."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import perimetry
from perimetry.assets import ASSETS
from perimetry.evals import EVALS
from perimetry.labs import LABS
from perimetry.perturb import PERTURBATIONS
from perimetry.sae import ARCHITECTURES
from perimetry.shift import DETECTORS
from perimetry.suites import SUITES

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "perimetry"
TABLES = {
    "ARCHITECTURES": ARCHITECTURES,
    "ASSETS": ASSETS,
    "DETECTORS": DETECTORS,
    "LABS": LABS,
    "EVALS": EVALS,
    "PERTURBATIONS": PERTURBATIONS,
    "SUITES": SUITES,
}


def _case(name: str) -> tuple[int, str]:
    """The order of isort: CONSTANTS, Classes, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def modules() -> list[Path]:
    return sorted(p for p in SOURCE.rglob("*.py") if p.name != "__main__.py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_all_is_sorted_and_true(path: Path) -> None:
    relative = path.relative_to(SOURCE.parent).with_suffix("")
    name = ".".join(relative.parts).removesuffix(".__init__")
    public = [
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    ]
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", None)
    if exported is None:
        assert not public, f"{name} defines {public} and has no __all__"
        return
    assert list(exported) == sorted(set(exported), key=_case), f"{name}.__all__ is not sorted or repeats a name"
    for symbol in exported:
        assert hasattr(module, symbol), f"{name}.__all__ lists {symbol!r}, which is not there"


def test_top_level_names_are_sorted_and_few() -> None:
    assert len(set(perimetry.__all__)) == len(perimetry.__all__)
    assert list(perimetry.__all__) == sorted(perimetry.__all__, key=_case)
    assert len(perimetry.__all__) <= 30
    for name in perimetry.__all__:
        assert getattr(perimetry, name) is not None


def test_importing_the_package_does_nothing_heavy() -> None:
    code = "import sys, perimetry; print(sorted(m for m in ('torch', 'numpy', 'transformers', 'pydantic') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


@pytest.mark.parametrize("table", sorted(TABLES))
def test_docs_mention_every_name_of_a_table(table: str) -> None:
    docs = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "docs").glob("*.md"))
    missing = [name for name in TABLES[table] if f"`{name}`" not in docs]
    assert not missing, f"{table}: the docs do not mention {missing}"
