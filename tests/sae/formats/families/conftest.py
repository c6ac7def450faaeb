from collections.abc import Iterator

import pytest
from tests.sae.formats.families.opened import opened_here


@pytest.fixture
def here() -> Iterator[None]:
    """npz, YAML and pickles are opened in this process."""
    with opened_here():
        yield
