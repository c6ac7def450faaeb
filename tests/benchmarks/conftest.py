"""The benchmarks are scripts beside the package; their helpers are imported from there."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def scripts() -> Iterator[Path]:
    """The folder, importable as long as a test needs it."""
    sys.path.insert(0, str(FOLDER))
    yield FOLDER
    sys.path.remove(str(FOLDER))


@pytest.fixture
def module(scripts: Path, request: pytest.FixtureRequest) -> ModuleType:
    """The script that the test file names with `MODULE`."""
    return import_module(request.module.MODULE)
