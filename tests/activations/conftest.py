import pytest

from .documents import Doc, make_documents


@pytest.fixture(scope="session")
def documents() -> list[Doc]:
    return make_documents(60)
