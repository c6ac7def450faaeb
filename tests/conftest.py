import pytest

from perimetry.activations.model import LanguageModel, tiny_language_model


@pytest.fixture(scope="session")
def tiny_lm() -> LanguageModel:
    return tiny_language_model("llama")
