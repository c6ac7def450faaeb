from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.tools import SHA, Rendered, find_helm, render

from perimetry.config import over

LEAST = {"artifact": {"claim": "models", "sha256": SHA}}
"""The values that the chart has no own ones for."""


@pytest.fixture(scope="session")
def helm() -> str:
    found = find_helm()
    if found is None:
        pytest.skip("no helm on the path, and none to be had")
    return found


@pytest.fixture
def rendered(helm: str, tmp_path: Path) -> Callable[..., Rendered]:
    """Renders the chart with the least values and these."""

    def make(**changed: Any) -> Rendered:
        return render(helm, over(LEAST, changed), tmp_path)

    return make
