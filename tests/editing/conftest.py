import pytest
from tests.worlds import sentences

from perimetry.activations.model import LanguageModel
from perimetry.assets.documents import Document
from perimetry.editing.moments import KeyMoments, MomentsConfig, key_moments

PREFIXES = ("", "the river crossed the hill", "a child", "her sister found a coin", "in the morning")
SMALL = MomentsConfig(tokens=600, context=48, batch_rows=4)


def documents(count: int = 24) -> list[Document]:
    """Plain sentences, a few a document."""
    found = sentences("editing")
    return [Document(f"d{i}", " ".join(next(found) for _ in range(6)), {}) for i in range(count)]


@pytest.fixture(scope="session")
def texts() -> list[Document]:
    return documents()


@pytest.fixture(scope="session")
def moments(tiny_lm: LanguageModel, texts: list[Document]) -> KeyMoments:
    """Of blocks 0 and 1 of the tiny model."""
    return key_moments(tiny_lm, [0, 1], texts, SMALL)
